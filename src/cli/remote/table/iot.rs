//! Commands of device registries, devices and brokers, and of messages to them.

use super::Kind::{Data, DataFile, File, Keys, NameOf, Pairs, Secret, Text, Word};
use super::{
    CREATE, DELETE, Flag, GET, Group, How, LABELS, LIST, OPERATIONS, Row, Special, UPDATE, flag, row,
};

pub(super) const GROUPS: &[Group] = &[
    Group {
        paths: &["iot registry"],
        about: "Device registries.",
        service: "yandex.cloud.iot.devices.v1.RegistryService",
        id: "registry_id",
        parent: "folder_id",
        rows: &[
            &[
                CREATE.flags(&[PASSWORD]),
                GET,
                LIST,
                UPDATE,
                DELETE,
                row("enable", "Enable", How::Each, "Let it and its devices connect."),
                row("disable", "Disable", How::Each, "Let it and its devices connect no more."),
                row(
                    "list-device-topic-aliases",
                    "ListDeviceTopicAliases",
                    How::ListOf,
                    "List its devices' aliases.",
                ),
                OPERATIONS,
            ],
            LABELS,
            SECRETS,
        ],
    },
    Group {
        paths: &["iot device"],
        about: "Devices.",
        service: "yandex.cloud.iot.devices.v1.DeviceService",
        id: "device_id",
        parent: "folder_id",
        rows: &[
            &[
                CREATE.flags(&[REGISTRY, ALIASES, PASSWORD]),
                GET.flags(&[VIEW]),
                LIST.flags(&[REGISTRY, VIEW]),
                UPDATE.flags(&[ALIASES]),
                DELETE,
                OPERATIONS,
                row(
                    "add-topic-aliases",
                    "Update",
                    How::Add("topic_aliases"),
                    "Add aliases, or change what they stand for.",
                )
                .flags(&[ALIASES]),
                row("remove-topic-aliases", "Update", How::Remove("topic_aliases"), "Remove aliases.")
                    .flags(&[&[flag("topic-aliases", "topic_aliases", Keys, "Aliases.")]]),
            ],
            LABELS,
            SECRETS,
        ],
    },
    Group {
        paths: &["iot broker"],
        about: "Brokers.",
        service: "yandex.cloud.iot.broker.v1.BrokerService",
        id: "broker_id",
        parent: "folder_id",
        rows: &[&[CREATE.flags(&[PASSWORD]), GET, LIST, UPDATE, DELETE, OPERATIONS], LABELS, SECRETS],
    },
    Group {
        paths: &["iot mqtt"],
        about: "Messages.",
        service: "yandex.cloud.iot.devices.v1.RegistryDataService",
        id: "",
        parent: "",
        rows: &[&[row(
            "publish",
            "Publish",
            How::Special(Special::Publish),
            "Publish a message as a registry, device or broker.",
        )
        .flags(&[&[
            flag("registry-id", "", Text, "As this registry."),
            flag("registry-name", "", NameOf("iot registry"), "The same by name."),
            flag("device-id", "", Text, "As this device."),
            flag("device-name", "", NameOf("iot device"), "The same by name."),
            flag("broker-id", "", Text, "As this broker."),
            flag("broker-name", "", NameOf("iot broker"), "The same by name."),
            flag("topic|t", "topic", Text, "The topic."),
            flag("data|d|message|m", "data", Data, "The message."),
            flag("file|f", "data", DataFile, "A file that holds it, or -."),
        ]])]],
    },
];

const PASSWORD: &[Flag] = &[
    flag("password", "password", Text, "A password, at least 14 characters."),
    flag("password-file", "password", Secret, "A file that holds it, or -."),
];
const REGISTRY: &[Flag] = &[
    flag("registry-id", "registry_id", Text, "The registry."),
    flag("registry-name", "registry_id", NameOf("iot registry"), "The same by name."),
];
const ALIASES: &[Flag] =
    &[flag("topic-aliases", "topic_aliases", Pairs, "ALIAS=TOPIC; several with commas.")];
const VIEW: &[Flag] =
    &[flag("view", "device_view", Word("", &["basic", "full"]), "full: also when it was last seen.")];

const SECRETS: &[Row] = &[
    row("password add", "AddPassword", How::One, "Add a password.").flags(&[PASSWORD]),
    row("password list", "ListPasswords", How::ListOf, "List ids of passwords."),
    row("password delete", "DeletePassword", How::One, "Delete a password.").flags(&[&[flag(
        "password-id",
        "password_id",
        Text,
        "Its id.",
    )]]),
    row("certificate add", "AddCertificate", How::One, "Add a certificate.").flags(&[&[flag(
        "certificate-file",
        "certificate_data",
        File,
        "A file with it in PEM form, or -.",
    )]]),
    row("certificate list", "ListCertificates", How::ListOf, "List certificates."),
    row("certificate delete", "DeleteCertificate", How::One, "Delete a certificate.").flags(&[&[flag(
        "fingerprint",
        "fingerprint",
        Text,
        "Its fingerprint.",
    )]]),
];
