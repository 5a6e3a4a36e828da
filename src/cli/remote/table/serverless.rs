//! Commands of triggers, API gateways and WebSocket connections.

use super::Kind::{Data, DataFile, File, Json, NameOf, Span, Switch, Text, Whole, Word, Words};
use super::{
    BINDINGS, CREATE, DELETE, Flag, GET, Group, How, LABELS, LIST, OPERATIONS, Row, Show, Special, UPDATE,
    flag, row,
};

pub(super) const GROUPS: &[Group] = &[
    Group {
        paths: &["serverless trigger", "serverless trigger v1", "trigger", "trigger v1"],
        about: "Triggers: one source, and what is done with its events.",
        service: "yandex.cloud.serverless.triggers.v1.TriggerService",
        id: "trigger_id",
        parent: "folder_id",
        rows: &[V1, TRIGGERS, LABELS],
    },
    Group {
        paths: &["serverless trigger v2", "trigger v2"],
        about: "The second form: one source, several actions.",
        service: "yandex.cloud.serverless.triggers.v2.TriggerService",
        id: "trigger_id",
        parent: "folder_id",
        rows: &[V2, TRIGGERS, LABELS],
    },
    Group {
        paths: &["serverless trigger", "trigger"],
        about: "",
        service: "triggercast.v1.TriggerTestService",
        id: "",
        parent: "",
        rows: &[&[row(
            "test",
            "Test",
            How::Special(Special::Test),
            "Say what would become of an event; nothing is sent.",
        )
        .flags(&[&[flag("event", "event", File, "A file with one event as JSON, or - for stdin.")]])]],
    },
    Group {
        paths: &["serverless api-gateway"],
        about: "API gateways, where WebSocket clients connect.",
        service: "yandex.cloud.serverless.apigateway.v1.ApiGatewayService",
        id: "api_gateway_id",
        parent: "folder_id",
        rows: &[
            &[
                CREATE.flags(&[SPEC]),
                GET,
                row("get-spec", "GetOpenapiSpec", How::One, "Print the OpenAPI specification.")
                    .flags(&[&[flag(
                        "spec-format",
                        "format",
                        Word("", &["json", "yaml"]),
                        "The form to ask for.",
                    )]])
                    .show(Show::Only("openapi_spec")),
                LIST,
                UPDATE.flags(&[SPEC]),
                DELETE,
                row("stop", "Stop", How::Each, "Close its connections and take no new ones."),
                row("resume", "Resume", How::Each, "Take connections again."),
                OPERATIONS,
            ],
            LABELS,
            BINDINGS,
        ],
    },
    Group {
        paths: &["serverless api-gateway websocket"],
        about: "WebSocket connections.",
        service: "yandex.cloud.serverless.apigateway.websocket.v1.ConnectionService",
        id: "connection_id",
        parent: "",
        rows: &[&[
            row("get", "Get", How::Each, "Show who is connected, and since when."),
            row("send|push|forward", "Send", How::Special(Special::Send), "Send messages to a connection.")
                .flags(&[MESSAGE, LINES]),
            row("disconnect", "Disconnect", How::Each, "Close connections."),
        ]],
    },
    Group {
        paths: &["serverless api-gateway websocket"],
        about: "",
        service: "triggercast.v1.ConnectionsService",
        id: "",
        parent: "",
        rows: &[&[
            row("list", "List", How::List, "List who is connected, in the order they came.")
                .flags(&[GATEWAY, SUBJECT, WHOSE]),
            Row {
                fixed: &[("type", "TEXT")],
                ..row("broadcast", "Broadcast", How::New, "Send a message to all that are connected now.")
            }
            .flags(&[GATEWAY, SUBJECT, MESSAGE]),
            row("disconnect-all", "Disconnect", How::New, "Close all of a gateway, or those that are meant.")
                .flags(&[GATEWAY, SUBJECT, WHOSE]),
        ]],
    },
];

const TRIGGERS: &[Row] = &[
    GET,
    LIST,
    DELETE,
    row("pause", "Pause", How::Each, "Send nothing until `resume`."),
    row("resume", "Resume", How::Each, "Go on."),
    OPERATIONS,
];

const V1: &[Row] =
    &[
        create("create internet-of-things|iot-devices", "For messages of devices.", "rule.iot_message")
            .flags(&[IOT_SOURCE, BATCH, BROADCAST, PAUSED]),
        create("create iot-broker", "For messages of a broker.", "rule.iot_broker_message").flags(&[
            BROKER_SOURCE,
            BATCH,
            BROADCAST,
            PAUSED,
        ]),
        create("create container-registry", "For what happens to images.", "rule.container_registry")
            .flags(&[IMAGE_SOURCE, BATCH, BROADCAST, PAUSED]),
        update("update internet-of-things|iot-devices", "One for messages of devices.", "rule.iot_message")
            .flags(&[NEW_IOT_SOURCE, NEW_BATCH, NEW_BROADCAST, PAUSED]),
        update("update iot-broker", "One for messages of a broker.", "rule.iot_broker_message").flags(&[
            NEW_BROKER_SOURCE,
            NEW_BATCH,
            NEW_BROADCAST,
            PAUSED,
        ]),
        update("update container-registry", "One for what happens to images.", "rule.container_registry")
            .flags(&[NEW_IMAGE_SOURCE, NEW_BATCH, NEW_BROADCAST, PAUSED]),
    ];

const V2: &[Row] =
    &[
        create("create internet-of-things|iot-devices", "For messages of devices.", "source.iot_message")
            .flags(&[IOT_SOURCE, BATCH_V2, ACTION, PAUSED]),
        create("create iot-broker", "For messages of a broker.", "source.iot_broker_message").flags(&[
            BROKER_SOURCE,
            BATCH_V2,
            ACTION,
            PAUSED,
        ]),
        create("create container-registry", "For what happens to images.", "source.container_registry")
            .flags(&[IMAGE_SOURCE, BATCH_V2, ACTION, PAUSED]),
        update("update internet-of-things|iot-devices", "One for messages of devices.", "source.iot_message")
            .flags(&[NEW_IOT_SOURCE, NEW_BATCH_V2, PAUSED]),
        update("update iot-broker", "One for messages of a broker.", "source.iot_broker_message").flags(&[
            NEW_BROKER_SOURCE,
            NEW_BATCH_V2,
            PAUSED,
        ]),
        update("update container-registry", "One for what happens to images.", "source.container_registry")
            .flags(&[NEW_IMAGE_SOURCE, NEW_BATCH_V2, PAUSED]),
        row("update add-actions", "Update", How::Append("action"), "Add actions to those of a trigger.")
            .flags(&[ACTION]),
        row("update replace-actions", "Update", How::Update, "Put actions in the place of all there are.")
            .flags(&[ACTION]),
        row("help-action", "", How::Special(Special::HelpAction), "Print how an action is written as JSON.")
            .flags(&[&[flag(
                "gateway-websocket-broadcast",
                "",
                Switch,
                "The broadcast to WebSockets, the only kind.",
            )]]),
    ];

const fn create(words: &'static str, about: &'static str, under: &'static str) -> Row {
    Row { refused: OTHER_ACTIONS, ..row(words, "Create", How::New, about).under(under) }
}

const fn update(words: &'static str, about: &'static str, under: &'static str) -> Row {
    Row { refused: NEW_OTHER_ACTIONS, ..row(words, "Update", How::Update, about).under(under) }
}

const EVENTS: super::Kind = Words(
    "CONTAINER_REGISTRY_EVENT_TYPE_",
    &["create-image", "delete-image", "create-image-tag", "delete-image-tag"],
);
const SPEC: &[Flag] = &[flag("spec", "openapi_spec", File, "A file with the OpenAPI specification, or -.")];
const PAUSED: &[Flag] = &[flag(
    "on-pause",
    "on_pause",
    Word("", &["hold", "drop"]),
    "What becomes of events while it is paused.",
)];
const ACTION: &[Flag] =
    &[flag("action", "action", Json, "An action as JSON or @FILE; see help-action. May be repeated.")];

const IOT_SOURCE: &[Flag] = &[
    flag("registry-id", ".registry_id", Text, "The device registry."),
    flag("registry-name", ".registry_id", NameOf("iot registry"), "The same by name."),
    flag("device-id", ".device_id", Text, "Only this device."),
    flag("mqtt-topic", ".mqtt_topic", Text, "A topic filter; without it, all topics."),
];
const NEW_IOT_SOURCE: &[Flag] = &[
    flag("new-registry-id", ".registry_id", Text, "The device registry."),
    flag("new-device-id", ".device_id", Text, "Only this device."),
    flag("new-mqtt-topic", ".mqtt_topic", Text, "A topic filter."),
];
const BROKER_SOURCE: &[Flag] = &[
    flag("broker-id", ".broker_id", Text, "The broker."),
    flag("broker-name", ".broker_id", NameOf("iot broker"), "The same by name."),
    flag("mqtt-topic", ".mqtt_topic", Text, "A topic filter; without it, all topics."),
];
const NEW_BROKER_SOURCE: &[Flag] = &[
    flag("new-broker-id", ".broker_id", Text, "The broker."),
    flag("new-mqtt-topic", ".mqtt_topic", Text, "A topic filter."),
];
const IMAGE_SOURCE: &[Flag] = &[
    flag("registry-id", ".registry_id", Text, "The container registry."),
    flag("registry-name", ".registry_id", NameOf("container registry"), "The same by name."),
    flag("events", ".event_type", EVENTS, "What has to happen; several with commas, or repeated."),
    flag("image-name", ".image_name", Text, "Only this image."),
    flag("tag", ".tag", Text, "Only this tag."),
];
const NEW_IMAGE_SOURCE: &[Flag] = &[
    flag("new-registry-id", ".registry_id", Text, "The container registry."),
    flag("new-events", ".event_type", EVENTS, "What has to happen."),
    flag("new-image-name", ".image_name", Text, "Only this image."),
    flag("new-tag", ".tag", Text, "Only this tag."),
];
const BATCH: &[Flag] = &[
    flag("batch-size", ".batch_settings.size", Whole("1"), "Most events in a batch, 1 to 1000."),
    flag(
        "batch-cutoff",
        ".batch_settings.cutoff",
        Span("1s"),
        "Time since a batch's first event, 1s to 60s.",
    ),
];
const NEW_BATCH: &[Flag] = &[
    flag("new-batch-size", ".batch_settings.size", Whole(""), "Most events in a batch, 1 to 1000."),
    flag(
        "new-batch-cutoff",
        ".batch_settings.cutoff",
        Span(""),
        "Time since a batch's first event, 1s to 60s.",
    ),
];
const BATCH_V2: &[Flag] = &[
    flag("batch-max-count", ".batch_settings.max_count", Whole("1"), "Most events in a batch, 1 to 1000."),
    flag("batch-max-bytes", ".batch_settings.max_bytes", Whole(""), "Most bytes in a batch, to 65536."),
    flag(
        "batch-cutoff",
        ".batch_settings.cutoff",
        Span("1s"),
        "Time since a batch's first event, 1s to 60s.",
    ),
];
const NEW_BATCH_V2: &[Flag] = &[
    flag("new-batch-max-count", ".batch_settings.max_count", Whole(""), "Most events in a batch, 1 to 1000."),
    flag("new-batch-max-bytes", ".batch_settings.max_bytes", Whole(""), "Most bytes in a batch, to 65536."),
    flag(
        "new-batch-cutoff",
        ".batch_settings.cutoff",
        Span(""),
        "Time since a batch's first event, 1s to 60s.",
    ),
];
const BROADCAST: &[Flag] = &[
    flag("gateway-id", ".gateway_websocket_broadcast.gateway_id", Text, "The gateway to broadcast at."),
    flag(
        "gateway-name",
        ".gateway_websocket_broadcast.gateway_id",
        NameOf("serverless api-gateway"),
        "The same by name.",
    ),
    flag("gateway-websocket-broadcast-path", ".gateway_websocket_broadcast.path", Text, "The path there."),
    flag(
        "gateway-websocket-broadcast-service-account-id|gateway-websocket-broadcast-account-id",
        ".gateway_websocket_broadcast.service_account_id",
        Text,
        "The service account in whose name it is done.",
    ),
    flag(
        "gateway-websocket-broadcast-service-account-name|gateway-websocket-broadcast-account-name",
        ".gateway_websocket_broadcast.service_account_id",
        NameOf("iam service-account"),
        "The same by name.",
    ),
];
const NEW_BROADCAST: &[Flag] = &[
    flag("new-gateway-id", ".gateway_websocket_broadcast.gateway_id", Text, "The gateway to broadcast at."),
    flag(
        "new-gateway-name",
        ".gateway_websocket_broadcast.gateway_id",
        NameOf("serverless api-gateway"),
        "The same by name.",
    ),
    flag(
        "new-gateway-websocket-broadcast-path",
        ".gateway_websocket_broadcast.path",
        Text,
        "The path there.",
    ),
    flag(
        "new-gateway-websocket-broadcast-service-account-id|new-gateway-websocket-broadcast-account-id",
        ".gateway_websocket_broadcast.service_account_id",
        Text,
        "The service account in whose name it is done.",
    ),
    flag(
        "new-gateway-websocket-broadcast-service-account-name|new-gateway-websocket-broadcast-account-name",
        ".gateway_websocket_broadcast.service_account_id",
        NameOf("iam service-account"),
        "The same by name.",
    ),
];
const MESSAGE: &[Flag] = &[
    flag("type|t", "type", Word("", &["text", "binary"]), "The kind of message; without it, text."),
    flag("data|d", "data", Data, "The message."),
    flag("file|f", "data", DataFile, "A file that holds it, or -."),
];
const LINES: &[Flag] =
    &[flag("stdin|l", "", Switch, "Every line of stdin is a message; binary ones as base64.")];
const GATEWAY: &[Flag] = &[
    flag("gateway-id", "gateway_id", Text, "The gateway."),
    flag("gateway-name", "gateway_id", NameOf("serverless api-gateway"), "The same by name."),
    flag("path", "path", Text, "Its path, as it is declared."),
];
const SUBJECT: &[Flag] =
    &[flag("subject", "subject", Text, "Only those of this one, as the path's authorizer says.")];
const WHOSE: &[Flag] = &[
    flag("source-ip", "source_ip", Text, "Only those from this address or network."),
    flag("connected-after", "connected_after", Text, "Only those who came at this time or later, RFC 3339."),
    flag("connected-before", "connected_before", Text, "Only those who came before this time."),
    flag("idle", "idle", Span(""), "Only those with whom nothing was exchanged for so long."),
];

const OTHER_ACTIONS: &[&str] = &[
    "invoke-function-id",
    "invoke-function-name",
    "invoke-function-tag",
    "invoke-function-service-account-id",
    "invoke-function-service-account-name",
    "invoke-container-id",
    "invoke-container-name",
    "invoke-container-path",
    "invoke-container-service-account-id",
    "invoke-container-service-account-name",
    "start-workflow-id",
    "start-workflow-service-account-id",
    "retry-attempts",
    "retry-interval",
    "dlq-queue-id",
    "dlq-service-account-id",
    "dlq-service-account-name",
];
const NEW_OTHER_ACTIONS: &[&str] = &[
    "new-invoke-function-id",
    "new-invoke-function-name",
    "new-invoke-function-tag",
    "new-invoke-function-service-account-id",
    "new-invoke-function-service-account-name",
    "new-invoke-container-id",
    "new-invoke-container-name",
    "new-invoke-container-path",
    "new-invoke-container-service-account-id",
    "new-invoke-container-service-account-name",
    "new-start-workflow-id",
    "new-start-workflow-service-account-id",
    "new-retry-attempts",
    "new-retry-interval",
    "new-dlq-queue-id",
    "new-dlq-service-account-id",
    "new-dlq-service-account-name",
];
