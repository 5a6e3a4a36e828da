//! Commands of service accounts, keys, tokens, roles and folders.

use super::Kind::{NameOf, Secret, Text, Texts, Word};
use super::{
    BINDINGS, CREATE, DELETE, Flag, GET, Group, How, LABELS, LIST, OPERATIONS, Show, Special, UPDATE, flag,
    row,
};

pub(super) const GROUPS: &[Group] = &[
    Group {
        paths: &["iam service-account"],
        about: "Service accounts: in whose name programs and triggers act.",
        service: "yandex.cloud.iam.v1.ServiceAccountService",
        id: "service_account_id",
        parent: "folder_id",
        rows: &[
            &[
                CREATE.flags(&[EXPIRES]),
                GET,
                LIST,
                UPDATE.flags(&[EXPIRES]),
                DELETE,
                row("suspend", "Suspend", How::Each, "Refuse it until `reactivate`."),
                row("reactivate", "Reactivate", How::Each, "Let it act again."),
                OPERATIONS,
            ],
            LABELS,
            BINDINGS,
        ],
    },
    Group {
        paths: &["iam key"],
        about: "Keys that service accounts sign with to get tokens.",
        service: "yandex.cloud.iam.v1.KeyService",
        id: "key_id",
        parent: "",
        rows: &[&[
            row("create", "Create", How::New, "Make a key and write it to a file, the only copy.")
                .flags(&[
                    ACCOUNT,
                    &[
                        flag(
                            "key-algorithm|algorithm",
                            "key_algorithm",
                            Word("", &["rsa-2048", "rsa-4096"]),
                            "Its kind.",
                        ),
                        flag("output|o", "", Text, "The file to write; it must not be there yet."),
                    ],
                ])
                .show(Show::KeyFile),
            LIST.flags(&[ACCOUNT]),
            GET,
            DELETE,
        ]],
    },
    Group {
        paths: &["iam api-key"],
        about: "API keys: secrets that stand for a service account.",
        service: "yandex.cloud.iam.v1.ApiKeyService",
        id: "api_key_id",
        parent: "",
        rows: &[&[
            row("create", "Create", How::New, "Make one. Its secret is shown now and never again.").flags(&[
                ACCOUNT,
                EXPIRES,
                &[flag("scopes|scope", "scopes", Texts, "What it is good for; several with commas.")],
            ]),
            LIST.flags(&[ACCOUNT]),
            GET,
            DELETE,
        ]],
    },
    Group {
        paths: &["iam"],
        about: "",
        service: "yandex.cloud.iam.v1.IamTokenService",
        id: "",
        parent: "",
        rows: &[&[
            row(
                "create-token",
                "Create",
                How::Special(Special::Token),
                "Print a token for a service account.",
            )
            .flags(&[
                &[
                    flag("key", "", Text, "The account's key file, as `iam key create` writes it."),
                    flag("jwt", "jwt", Text, "A token that the account has signed."),
                ],
                SOMEONE,
            ])
            .show(Show::Only("iam_token")),
            row("revoke-token", "Revoke", How::New, "Refuse a token from now on.").flags(&[&[
                flag("iam-token", "iam_token", Text, "The token."),
                flag("iam-token-file", "iam_token", Secret, "A file that holds it, or -."),
            ]]),
        ]],
    },
    Group {
        paths: &["iam role"],
        about: "Roles.",
        service: "yandex.cloud.iam.v1.RoleService",
        id: "role_id",
        parent: "",
        rows: &[&[row("list", "List", How::List, "List all."), GET]],
    },
    Group {
        paths: &["resource-manager folder", "folder"],
        about: "Folders, which hold everything else.",
        service: "yandex.cloud.resourcemanager.v1.FolderService",
        id: "folder_id",
        parent: "cloud_id",
        rows: &[
            &[CREATE, GET, row("list", "List", How::List, "List all."), UPDATE, DELETE, OPERATIONS],
            LABELS,
            BINDINGS,
        ],
    },
];

const ACCOUNT: &[Flag] = &[
    flag("service-account-id", "service_account_id", Text, "The service account."),
    flag("service-account-name", "service_account_id", NameOf("iam service-account"), "The same by name."),
];
/// The same where it is a field of another request.
const SOMEONE: &[Flag] = &[
    flag("service-account-id", "", Text, "For this account, if the caller may act as it."),
    flag("service-account-name", "", NameOf("iam service-account"), "The same by name."),
];
const EXPIRES: &[Flag] =
    &[flag("expires-at", "expires_at", Text, "Until when it is good, as 2027-01-31T12:00:00Z.")];
