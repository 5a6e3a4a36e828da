//! Every command of the management API as a row: its words, its call, and where its flags go.
//!
//! What the messages themselves tell is not written here: a request that has `name`, `description` or `labels` gets
//! those flags, one that has `folder_id` gets the folder, and what a call answers says how it is shown.

mod container;
mod iam;
mod iot;
mod serverless;

/// Commands about one kind of resource.
pub(super) struct Group {
    /// Where they stand; the first is the one to speak of.
    pub(super) paths: &'static [&'static str],
    pub(super) about: &'static str,
    /// The service's full name.
    pub(super) service: &'static str,
    /// The field of requests that says which resource.
    pub(super) id: &'static str,
    /// The field of list requests that says where names are looked for; empty where there are no names.
    pub(super) parent: &'static str,
    pub(super) rows: &'static [&'static [Row]],
}

/// One command.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// The words after those of the group; `|` stands before another name of the last one.
    pub(super) words: &'static str,
    /// The method of the group's service.
    pub(super) call: &'static str,
    pub(super) how: How,
    pub(super) about: &'static str,
    /// What stands before fields that begin with a dot.
    pub(super) under: &'static str,
    /// Fields that no flag sets.
    pub(super) fixed: &'static [(&'static str, &'static str)],
    pub(super) flags: &'static [&'static [Flag]],
    /// Flags of the model system for things that are not built here.
    pub(super) refused: &'static [&'static str],
    pub(super) show: Show,
}

/// How a command becomes calls.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum How {
    /// One call that names no resource, perhaps a new one.
    New,
    /// One call for each resource that is named.
    Each,
    /// One call about one resource.
    One,
    /// All pages of a list.
    List,
    /// All pages of a list about one resource.
    ListOf,
    /// An update of the fields that are given; parts of `rule` and the like are put into what there is.
    Update,
    /// An update of a list: what there is, and what is given.
    Append(&'static str),
    /// An update of a map: what there is, and what is given.
    Add(&'static str),
    /// An update of a map: what there is, without what is given.
    Remove(&'static str),
    /// Anything else.
    Special(Special),
}

/// Commands that are more than a call.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Special {
    Test,
    HelpAction,
    Send,
    Publish,
    Token,
    Wait,
}

/// What of an answer is shown.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Show {
    Whole,
    /// In the text format only this field.
    Only(&'static str),
    /// A new key goes to a file.
    KeyFile,
}

/// A flag and the field that it sets.
pub(super) struct Flag {
    /// Without the dashes; `|` stands before other names, a single character is a short one.
    pub(super) long: &'static str,
    /// Names with dots between them; numbers are places in a list; a dot in front stands for the row's `under`.
    pub(super) to: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    /// Several, with commas or repeated.
    Texts,
    /// A number, and its default.
    Whole(&'static str),
    /// A duration, and its default.
    Span(&'static str),
    /// KEY=VALUE, several.
    Pairs,
    /// KEY, several; a value is ignored.
    Keys,
    /// One of these words, with this before it in the message.
    Word(&'static str, &'static [&'static str]),
    /// Several of them.
    Words(&'static str, &'static [&'static str]),
    /// The name of a resource of the group with this path.
    NameOf(&'static str),
    /// A file's text; `-` is stdin.
    File,
    /// A file's text without the line break at its end; `-` is stdin.
    Secret,
    /// Text as bytes.
    Data,
    /// A file's bytes; `-` is stdin.
    DataFile,
    /// JSON or @FILE, several.
    Json,
    /// TYPE:ID of who is meant.
    Subject,
    /// role=ROLE,subject=TYPE:ID, several.
    Bindings,
    /// Only there or not; for what is more than a call.
    Switch,
}

/// Every group.
pub(super) fn groups() -> impl Iterator<Item = &'static Group> {
    [serverless::GROUPS, iot::GROUPS, container::GROUPS, iam::GROUPS].into_iter().flatten()
}

/// What groups of groups are.
pub(super) const ABOUTS: &[(&str, &str)] = &[
    ("serverless", "Triggers and API gateways."),
    ("iot", "Device registries, devices, brokers, and messages to them."),
    ("container", "Container registries and their images."),
    ("iam", "Service accounts, their keys and tokens, roles."),
    ("resource-manager", "Folders."),
    ("password", "Its passwords."),
    ("certificate", "Its certificates."),
    ("create", "Make one."),
    ("update", "Change one."),
    ("v1", "The first form: one rule."),
];

/// Examples, shown below the help of a group.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    (
        "trigger",
        "\
Examples:
  triggercast trigger create internet-of-things hall --registry-id factory --mqtt-topic '$devices/+/events' \\
    --batch-size 10 --gateway-id main --gateway-websocket-broadcast-path /ws \\
    --gateway-websocket-broadcast-service-account-id broadcaster
  triggercast trigger get hall                               one trigger, as YAML
  triggercast trigger list --format json                     all of the folder
  triggercast trigger update internet-of-things hall --new-batch-size 100
  triggercast trigger pause hall yard                        several at once
  triggercast trigger test hall --event event.json           what would become of an event?",
    ),
    (
        "iam",
        "\
Examples:
  triggercast iam service-account create caster
  triggercast iam key create --service-account-name caster --output key.json
  triggercast iam create-token --key key.json
  triggercast iam api-key create --service-account-name caster",
    ),
    (
        "iot",
        "\
Examples:
  triggercast iot registry create factory
  triggercast iot device create press-1 --registry-name factory --password-file password.txt
  triggercast iot mqtt publish --device-name press-1 --topic '$devices/ID/events' --data hello",
    ),
    (
        "folder",
        "\
Examples:
  triggercast folder add-access-binding default --role api-gateway.websocketBroadcaster --service-account-name caster
  triggercast folder list-access-bindings default",
    ),
];

const fn row(words: &'static str, call: &'static str, how: How, about: &'static str) -> Row {
    let (flags, fixed, refused): (&[&[Flag]], _, _) = (&[], &[], &[]);
    Row { words, call, how, about, under: "", fixed, flags, refused, show: Show::Whole }
}

impl Row {
    const fn flags(self, flags: &'static [&'static [Flag]]) -> Self {
        Self { flags, ..self }
    }

    const fn under(self, under: &'static str) -> Self {
        Self { under, ..self }
    }

    const fn show(self, show: Show) -> Self {
        Self { show, ..self }
    }
}

const fn flag(long: &'static str, to: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { long, to, kind, help }
}

const GET: Row = row("get", "Get", How::Each, "Show one or several.");
const LIST: Row = row("list", "List", How::List, "List those of the folder.");
const DELETE: Row = row("delete", "Delete", How::Each, "Delete one or several.");
const CREATE: Row = row("create", "Create", How::New, "Make one.");
const UPDATE: Row = row("update", "Update", How::Update, "Change what is given, nothing else.");
const OPERATIONS: Row = row("list-operations", "ListOperations", How::ListOf, "List what was done to one.");
const LABELS: &[Row] =
    &[
        row("add-labels", "Update", How::Add("labels"), "Add labels, or change their values.")
            .flags(&[&[flag("labels", "labels", Kind::Pairs, "Labels.")]]),
        row("remove-labels", "Update", How::Remove("labels"), "Remove labels.").flags(&[&[flag(
            "labels",
            "labels",
            Kind::Keys,
            "Keys of labels.",
        )]]),
    ];

const DELTA: &[Flag] = &[
    flag("role", "access_binding_deltas.0.access_binding.role_id", Kind::Text, "The role."),
    flag(
        "subject",
        "access_binding_deltas.0.access_binding.subject.id",
        Kind::Subject,
        "Who, such as serviceAccount:ID.",
    ),
    flag(
        "service-account-id",
        "access_binding_deltas.0.access_binding.subject.id",
        Kind::Text,
        "The service account.",
    ),
    flag(
        "service-account-name",
        "access_binding_deltas.0.access_binding.subject.id",
        Kind::NameOf("iam service-account"),
        "The same by name.",
    ),
];
const SUBJECT_TYPE: (&str, &str) = ("access_binding_deltas.0.access_binding.subject.type", "serviceAccount");
const BINDINGS: &[Row] = &[
    row("list-access-bindings", "ListAccessBindings", How::ListOf, "List who has which role there."),
    Row {
        fixed: &[("access_binding_deltas.0.action", "ADD"), SUBJECT_TYPE],
        ..row("add-access-binding", "UpdateAccessBindings", How::One, "Give someone a role there.")
    }
    .flags(&[DELTA]),
    Row {
        fixed: &[("access_binding_deltas.0.action", "REMOVE"), SUBJECT_TYPE],
        ..row("remove-access-binding", "UpdateAccessBindings", How::One, "Take a role from someone.")
    }
    .flags(&[DELTA]),
    row("set-access-bindings", "SetAccessBindings", How::One, "Replace all roles there.").flags(&[&[flag(
        "access-binding",
        "access_bindings",
        Kind::Bindings,
        "role=ROLE,subject=TYPE:ID or role=ROLE,service-account-id=ID; may be repeated.",
    )]]),
];
