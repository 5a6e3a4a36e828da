//! Every command becomes the request that it should.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::Parser;

use super::*;
use crate::cli::{Args, Command};

/// Each command once, with most of its flags.
const LINES: &str = r#"
serverless trigger create internet-of-things hall --description "The hall" --labels a=1,b=2 --registry-id r --device-id d --mqtt-topic $devices/d/events --batch-size 10 --batch-cutoff 500ms --gateway-id g --gateway-websocket-broadcast-path /ws --gateway-websocket-broadcast-service-account-id sa --on-pause drop
trigger v1 create iot-devices --name hall --registry-name factory --gateway-name main --gateway-websocket-broadcast-path /ws --gateway-websocket-broadcast-account-id sa
trigger create iot-broker hall --broker-id b --mqtt-topic hall/# --gateway-id g --gateway-websocket-broadcast-path / --gateway-websocket-broadcast-service-account-name caster
trigger create container-registry pushes --registry-id crt --events create-image,delete-image --events create-image-tag --image-name web/shop --tag latest --batch-size 3 --batch-cutoff 20s --gateway-id g --gateway-websocket-broadcast-path / --gateway-websocket-broadcast-service-account-id sa
trigger update internet-of-things hall --new-name yard --new-registry-id r2 --new-device-id d2 --new-mqtt-topic t --new-batch-size 5 --new-batch-cutoff 1m --new-gateway-id g2 --new-gateway-websocket-broadcast-path /x --new-gateway-websocket-broadcast-service-account-id sa2 --on-pause hold
trigger update iot-broker --id t1 --new-broker-id b2 --new-gateway-name other
trigger update container-registry --name pushes --new-events delete-image --new-image-name "" --new-tag 1.0
trigger get a b c
trigger list --limit 5
trigger delete --trigger-id t1
trigger pause a b
trigger resume --trigger-name a
trigger list-operations a
trigger add-labels a --labels x=1 --labels y=2
trigger remove-labels a --labels x,y=2
trigger test hall --event /dev/null
serverless trigger v2 create internet-of-things hall --registry-id r --batch-max-count 10 --batch-max-bytes 1000 --batch-cutoff 2s --action {"gateway_websocket_broadcast":{"gateway_id":"g"},"filter":{"jq":".a,.b"}} --action {}
trigger v2 create iot-broker hall --broker-name plant --action {}
trigger v2 create container-registry pushes --registry-name images --events create-image --action {}
trigger v2 update internet-of-things hall --new-device-id d2 --new-batch-max-count 7 --new-batch-cutoff 3s
trigger v2 update iot-broker hall --new-mqtt-topic t
trigger v2 update container-registry hall --new-tag t
trigger v2 update add-actions hall --action {}
trigger v2 update replace-actions hall --action {} --action {"filter":{"jq":"."}}
trigger v2 help-action --gateway-websocket-broadcast
trigger v2 get a
trigger v2 list
trigger v2 delete a
trigger v2 pause a
trigger v2 resume a
trigger v2 list-operations a
trigger v2 add-labels a --labels x=1
trigger v2 remove-labels a --labels x
serverless api-gateway create main --spec /dev/null
serverless api-gateway get main
serverless api-gateway get-spec main --spec-format json
serverless api-gateway list
serverless api-gateway update main --new-name other --description "" --spec /dev/null
serverless api-gateway delete main
serverless api-gateway stop main
serverless api-gateway resume main
serverless api-gateway list-operations main
serverless api-gateway add-labels main --labels x=1
serverless api-gateway remove-labels main --labels x
serverless api-gateway list-access-bindings main
serverless api-gateway add-access-binding main --role api-gateway.websocketBroadcaster --service-account-name caster
serverless api-gateway remove-access-binding main --role viewer --subject userAccount:u
serverless api-gateway set-access-bindings main --access-binding role=viewer,subject=userAccount:u --access-binding role=editor,service-account-id=sa
serverless api-gateway websocket get c1
serverless api-gateway websocket push c1 -t binary -d hello
serverless api-gateway websocket disconnect c1 c2
serverless api-gateway websocket list --gateway-id main --path /ws --source-ip 10.0.0.0/8 --subject ann --connected-after 2026-01-01T00:00:00Z --connected-before 2026-02-01T00:00:00Z --idle 90s
serverless api-gateway websocket broadcast --gateway-name main --path /ws -d hello
serverless api-gateway websocket disconnect-all --gateway-id main --subject ann
iot registry create factory --password-file /dev/null
iot registry get factory
iot registry list
iot registry update factory --labels a=b
iot registry delete factory
iot registry enable factory
iot registry disable factory
iot registry list-device-topic-aliases factory
iot registry list-operations factory
iot registry add-labels factory --labels x=1
iot registry remove-labels factory --labels x
iot registry password add factory --password 0123456789abcD
iot registry password list --registry-name factory
iot registry password delete factory --password-id p
iot registry certificate add factory --certificate-file /dev/null
iot registry certificate list factory
iot registry certificate delete factory --fingerprint f
iot device create press-1 --registry-name factory --topic-aliases hall/1=$devices/press-1
iot device get press-1 --view full
iot device list --registry-id r
iot device update press-1 --new-name press-2
iot device delete press-1
iot device list-operations press-1
iot device add-topic-aliases press-1 --topic-aliases a=b,c=d
iot device remove-topic-aliases press-1 --topic-aliases a
iot device add-labels press-1 --labels x=1
iot device remove-labels press-1 --labels x
iot device password add press-1 --password 0123456789abcD
iot device password list press-1
iot device password delete press-1 --password-id p
iot device certificate add press-1 --certificate-file /dev/null
iot device certificate list press-1
iot device certificate delete press-1 --fingerprint f
iot broker create plant
iot broker get plant
iot broker list
iot broker update plant --description d
iot broker delete plant
iot broker list-operations plant
iot broker add-labels plant --labels x=1
iot broker remove-labels plant --labels x
iot broker password add plant --password 0123456789abcD
iot broker password list plant
iot broker password delete plant --password-id p
iot broker certificate add plant --certificate-file /dev/null
iot broker certificate list plant
iot broker certificate delete plant --fingerprint f
iot mqtt publish --registry-id r --topic $devices/d/commands --data hello
container registry get images
container registry list
container registry list-access-bindings images
container registry add-access-binding images --role container-registry.images.puller --service-account-id sa
container registry remove-access-binding images --role container-registry.images.puller --service-account-id sa
container registry set-access-bindings images --access-binding role=viewer,subject=userAccount:u
container image get i1
container image list --registry-name images --repository-name web/shop
container repository list --registry-id crt
operation get o1
operation wait o1
operation cancel o1
audit list --resource-id t1
monitoring overview
monitoring gateway --gateway-name main
monitoring trigger --trigger-name hot --event-count 3
monitoring devices --registry-id factory
monitoring container-registry --registry-name images
iam service-account create caster --expires-at 2027-01-31T12:00:00Z
iam service-account get caster
iam service-account list
iam service-account update caster --description d
iam service-account delete caster
iam service-account suspend caster
iam service-account reactivate caster
iam service-account list-operations caster
iam service-account add-labels caster --labels x=1
iam service-account remove-labels caster --labels x
iam service-account list-access-bindings caster
iam service-account add-access-binding caster --role iam.serviceAccounts.user --service-account-id other
iam service-account remove-access-binding --id caster --role iam.serviceAccounts.user --subject serviceAccount:other
iam service-account set-access-bindings caster --access-binding role=viewer,subject=userAccount:u
iam key create --service-account-name caster --key-algorithm rsa-4096 --output key.json
iam key list --service-account-id sa
iam key get k1
iam key delete k1
iam api-key create --service-account-id sa --description d --scopes a,b
iam api-key list --service-account-name caster
iam api-key get k1
iam api-key delete k1
iam create-token --service-account-id sa
iam revoke-token --iam-token t1.x
iam role list
iam role get viewer
resource-manager folder create hall --labels a=b
folder get hall
folder list
folder update hall --new-name yard
folder delete hall
folder list-operations hall
folder add-labels hall --labels x=1
folder remove-labels hall --labels x
folder list-access-bindings hall
folder add-access-binding hall --role editor --subject userAccount:u
folder remove-access-binding hall --role editor --subject userAccount:u
folder set-access-bindings hall --access-binding role=viewer,subject=userAccount:u
"#;

/// The words of a line; double quotes hold several together.
fn words(line: &str) -> Vec<String> {
    if line.contains('{') {
        return line.split(' ').map(ToOwned::to_owned).collect();
    }
    let mut words = Vec::new();
    for (place, part) in line.split('"').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

fn asked(line: &str) -> Asked {
    let words = std::iter::once("triggercast".to_owned()).chain(words(line));
    match Args::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Some(Command::Remote(asked)) => asked,
        other => panic!("{line}: {other:?}"),
    }
}

fn plan(line: &str) -> Result<String, Failure> {
    let asked = asked(line);
    let (group, row, matches) = tree::find(&asked.word, &asked.matches).unwrap();
    let Some(method) = tree::method(group, row) else { return Ok("(no call)".to_owned()) };
    let plan = request::plan(row, &method.input(), matches)?;
    // What is given is what the message takes; keys to remove are not for the message itself.
    if !matches!(row.how, How::Remove(_)) {
        request::message(method.input(), &plan.request)?;
    }
    let mut text = format!("{} {}", method.full_name(), plan.request);
    for name in plan.names {
        write!(text, "\n  {} = the id of {} {:?}", name.field, name.group, name.name).unwrap();
    }
    for target in act::Target::of(matches) {
        write!(text, "\n  {target:?}").unwrap();
    }
    Ok(text)
}

#[test]
fn every_command_becomes_its_request() {
    let mut shown = String::new();
    for line in LINES.trim().lines() {
        let request = plan(line).unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
        writeln!(shown, "$ {line}\n{request}").unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn no_command_is_left_out() {
    let mut seen = BTreeSet::new();
    for line in LINES.trim().lines() {
        let asked = asked(line);
        let (group, row, _) = tree::find(&asked.word, &asked.matches).unwrap();
        seen.insert((group.service, row.words));
    }
    for group in table::groups() {
        for row in group.rows.iter().copied().flatten() {
            let is_seen = seen.contains(&(group.service, row.words));
            assert!(is_seen, "{} {} is not in LINES", group.paths[0], row.words);
        }
    }
}

#[test]
fn every_row_has_its_method_and_every_flag_its_field() {
    for group in table::groups() {
        for row in group.rows.iter().copied().flatten() {
            if row.call.is_empty() {
                continue;
            }
            let method = session::method(group.service, row.call).unwrap();
            for flag in row.flags.iter().copied().flatten().filter(|flag| !flag.to.is_empty()) {
                let path = if flag.to.starts_with('.') {
                    format!("{}{}", row.under, flag.to)
                } else {
                    flag.to.into()
                };
                let there = request::field_of(&method.input(), &path).is_some();
                assert!(there, "{}: {} sets {path}, which is no field", group.paths[0], flag.long);
            }
            for flag in row.flags.iter().copied().flatten() {
                if let table::Kind::NameOf(path) = flag.kind {
                    act::group(path).unwrap();
                }
            }
        }
    }
}

#[test]
fn the_tree_is_sound() {
    use clap::CommandFactory;
    Args::command().debug_assert();
}

#[test]
fn wrong_arguments_are_told() {
    let broadcast = "--gateway-id g --gateway-websocket-broadcast-path / --gateway-websocket-broadcast-service-account-id s";
    for (line, expected) in [
        (
            "trigger create internet-of-things hall",
            "missing: --registry-id or --registry-name, --gateway-id or --gateway-name, \
             --gateway-websocket-broadcast-path, --gateway-websocket-broadcast-service-account-id or \
             --gateway-websocket-broadcast-service-account-name. More with --help",
        ),
        (
            &format!("trigger create container-registry hall {broadcast}"),
            "missing: --events. More with --help",
        ),
        ("iam service-account create", "missing: NAME. More with --help"),
        (
            "folder add-access-binding f --role viewer",
            "missing: --subject or --service-account-id or --service-account-name. More with --help",
        ),
        (
            "folder add-access-binding f --role viewer --subject me",
            "\"me\" is not TYPE:ID, such as serviceAccount:aje…",
        ),
        (
            "trigger create iot-broker hall --invoke-function-id f",
            "--invoke-function-id: Triggercast broadcasts to WebSockets only. Say where with --gateway-id, \
             --gateway-websocket-broadcast-path and --gateway-websocket-broadcast-service-account-id",
        ),
        (
            "trigger update iot-broker hall --new-retry-attempts 3",
            "--new-retry-attempts: Triggercast broadcasts to WebSockets only. Say where with --gateway-id, \
             --gateway-websocket-broadcast-path and --gateway-websocket-broadcast-service-account-id",
        ),
        ("trigger create iot-broker hall --batch-size x", "--batch-size: \"x\" is not a whole number"),
        (
            "trigger create iot-broker hall --batch-cutoff 20",
            "--batch-cutoff: \"20\" is not a duration such as 500ms, 1.5s or 1m",
        ),
        ("trigger add-labels hall --labels a", "--labels: \"a\" is not KEY=VALUE"),
        (
            "trigger create iot-broker hall --broker-id a --broker-name b",
            "--broker-id and --broker-name say the same; give one of them",
        ),
        (
            "iot registry create r --password-file /nowhere",
            "/nowhere: cannot be read: No such file or directory (os error 2)",
        ),
    ] {
        match plan(line) {
            Err(Failure::Input(message)) => assert_eq!(message, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn what_help_action_prints_is_an_action() {
    let action: serde_json::Value = serde_json::from_str(special::ACTION).unwrap();
    let mut action = action;
    action["payload_encoding"] = serde_json::json!("BASE64");
    let request = serde_json::json!({ "action": [action] });
    let method = session::method("yandex.cloud.serverless.triggers.v2.TriggerService", "Create").unwrap();
    request::message(method.input(), &request).unwrap();
}
