//! Commands of container registries, operations, the audit log, and of what passes through.

use super::Kind::{NameOf, Text, Whole};
use super::{BINDINGS, Flag, GET, Group, How, LIST, Special, flag, row};

pub(super) const GROUPS: &[Group] = &[
    Group {
        paths: &["container registry"],
        about: "Container registries.",
        service: "yandex.cloud.containerregistry.v1.RegistryService",
        id: "registry_id",
        parent: "folder_id",
        rows: &[&[GET, LIST], BINDINGS],
    },
    Group {
        paths: &["container image"],
        about: "Images.",
        service: "yandex.cloud.containerregistry.v1.ImageService",
        id: "image_id",
        parent: "",
        rows: &[&[
            GET,
            LIST.flags(&[
                REGISTRY,
                &[flag("repository-name", "repository_name", Text, "Only those of this repository.")],
            ]),
        ]],
    },
    Group {
        paths: &["container repository"],
        about: "Repositories.",
        service: "yandex.cloud.containerregistry.v1.RepositoryService",
        id: "repository_id",
        parent: "",
        rows: &[&[LIST.flags(&[REGISTRY])]],
    },
    Group {
        paths: &["operation"],
        about: "What a change has come to.",
        service: "yandex.cloud.operation.OperationService",
        id: "operation_id",
        parent: "",
        rows: &[&[
            GET,
            row(
                "wait",
                "Get",
                How::Special(Special::Wait),
                "Wait until it is done, and show what came of it.",
            ),
            row("cancel", "Cancel", How::Each, "Stop it, if that can be."),
        ]],
    },
    Group {
        paths: &["monitoring"],
        about: "What passes through the server just now.",
        service: "triggercast.v1.MonitoringService",
        id: "",
        parent: "",
        rows: &[&[
            row("overview", "GetOverview", How::New, "Show sums, sources, paths, and what does not work."),
            row("gateway", "GetGatewayActivity", How::New, "Show the paths of a gateway.").flags(&[&[
                flag("gateway-id", "gateway_id", Text, "The gateway."),
                flag("gateway-name", "gateway_id", NameOf("serverless api-gateway"), "The same by name."),
            ]]),
            row("trigger", "GetTriggerActivity", How::New, "Show a trigger's batches and last events.")
                .flags(&[&[
                    flag("trigger-id", "trigger_id", Text, "The trigger."),
                    flag("trigger-name", "trigger_id", NameOf("serverless trigger v2"), "The same by name."),
                    flag("event-count", "event_count", Whole("10"), "At most so many of the last events."),
                ]]),
            row("devices", "ListDeviceActivity", How::List, "List what came from devices last.").flags(&[&[
                flag("registry-id", "registry_id", Text, "The registry."),
                flag("registry-name", "registry_id", NameOf("iot registry"), "The same by name."),
            ]]),
            row(
                "container-registry",
                "GetContainerRegistryActivity",
                How::New,
                "Show what a container registry told last.",
            )
            .flags(&[&[
                flag("registry-id", "registry_id", Text, "The registry."),
                flag("registry-name", "registry_id", NameOf("container registry"), "The same by name."),
            ]]),
        ]],
    },
    Group {
        paths: &["audit"],
        about: "Who changed what.",
        service: "triggercast.v1.AuditService",
        id: "",
        parent: "",
        rows: &[&[row("list", "List", How::List, "List changes, the newest first.").flags(&[&[flag(
            "resource-id",
            "resource_id",
            Text,
            "Only what was done to this resource.",
        )]])]],
    },
];

const REGISTRY: &[Flag] = &[
    flag("registry-id", "registry_id", Text, "Only those of this registry."),
    flag("registry-name", "registry_id", NameOf("container registry"), "The same by name."),
];
