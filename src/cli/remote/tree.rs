//! The table of commands as a tree for clap, and the way back from what was given to a row.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use prost_reflect::{MessageDescriptor, MethodDescriptor};

use super::settings;
use super::table::{self, Flag, Group, How, Kind, Row, Special};
use crate::proto::POOL;

/// What is named by its place among the arguments: a resource, or its new name.
pub(super) const TARGET: &str = "TARGET";
/// Most resources of a list.
pub(super) const LIMIT: &str = "limit";
const MOST_LISTED: &str = "1000";

const fn flag(long: &'static str, to: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { long, to, kind, help }
}

/// Flags of every request for something new that has these fields.
static NEW: [Flag; 3] = [
    flag("name", "name", Kind::Text, "The same as NAME."),
    flag("description", "description", Kind::Text, "Words for people."),
    flag("labels", "labels", Kind::Pairs, "KEY=VALUE; several with commas, or repeated."),
];
/// The same of updates.
static CHANGE: [Flag; 3] = [
    flag("new-name", "name", Kind::Text, "Another name."),
    flag("description", "description", Kind::Text, "Words for people."),
    flag("labels", "labels", Kind::Pairs, "KEY=VALUE, in place of all that there are."),
];

/// A row with the words that lead to it.
struct Leaf {
    path: Vec<&'static str>,
    group: &'static Group,
    row: &'static Row,
}

fn leaves() -> Vec<Leaf> {
    let mut leaves = Vec::new();
    for group in table::groups() {
        for path in group.paths {
            for row in group.rows.iter().copied().flatten() {
                leaves.push(Leaf { path: path.split(' ').chain(row.words.split(' ')).collect(), group, row });
            }
        }
    }
    leaves
}

/// The first words of all commands.
pub(super) fn is_first_word(word: &str) -> bool {
    table::groups().flat_map(|group| group.paths).any(|path| path.split(' ').next() == Some(word))
}

/// The commands under the first words.
pub(super) fn commands() -> Vec<Command> {
    branches(&[], &leaves())
}

fn branches(before: &[&'static str], leaves: &[Leaf]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for leaf in leaves.iter().filter(|leaf| leaf.path.starts_with(before)) {
        let Some(&word) = leaf.path.get(before.len()) else { continue };
        let mut names = word.split('|');
        let name = names.next().unwrap_or_default();
        if commands.iter().any(|command| command.get_name() == name) {
            continue;
        }
        let path = [before, &[word]].concat();
        let command = Command::new(name).visible_aliases(names.collect::<Vec<_>>());
        commands.push(if path.len() == leaf.path.len() {
            arguments(command, leaf)
        } else {
            command
                .about(shown(about(&path)))
                .after_help(examples(&path))
                .subcommands(branches(&path, leaves))
                .subcommand_required(true)
                .arg_required_else_help(true)
        });
    }
    commands
}

fn about(path: &[&'static str]) -> &'static str {
    let whole = path.join(" ");
    let of_group = table::groups().find(|group| group.paths.contains(&&*whole)).map(|group| group.about);
    let last = path.last().copied().unwrap_or_default();
    let of_word = table::ABOUTS.iter().find(|(word, _)| *word == last).map(|(_, about)| *about);
    if last == "v1" { of_word } else { of_group.filter(|about| !about.is_empty()).or(of_word) }
        .unwrap_or_default()
}

fn examples(path: &[&'static str]) -> &'static str {
    let last = path.last().copied().unwrap_or_default();
    table::EXAMPLES.iter().find(|(word, _)| *word == last).map(|(_, examples)| *examples).unwrap_or_default()
}

/// Without its full stop, as clap shows sentences elsewhere.
pub(super) fn shown(sentence: &'static str) -> &'static str {
    sentence.strip_suffix('.').unwrap_or(sentence)
}

/// The method that a row calls; not every special command has one.
pub(super) fn method(group: &Group, row: &Row) -> Option<MethodDescriptor> {
    let service = POOL.get_service_by_name(group.service)?;
    service.methods().find(|method| method.name() == row.call)
}

/// The field of a request that says which resource is meant.
pub(super) fn id_field(group: &Group, input: &MessageDescriptor) -> &'static str {
    if input.get_field_by_name(group.id).is_some() { group.id } else { "resource_id" }
}

/// Every flag of a row that sets a field.
pub(super) fn flags(row: &'static Row, input: Option<&MessageDescriptor>) -> Vec<&'static Flag> {
    let general: &'static [Flag] = match row.how {
        How::New => &NEW,
        How::Update => &CHANGE,
        _ => &[],
    };
    let has = |flag: &&Flag| input.is_some_and(|input| input.get_field_by_name(flag.to).is_some());
    general.iter().filter(has).chain(row.flags.iter().copied().flatten()).collect()
}

fn arguments(command: Command, leaf: &Leaf) -> Command {
    let Leaf { group, row, .. } = leaf;
    let input = method(group, row).map(|method| method.input());
    let flags = flags(row, input.as_ref());
    let mut command = target(command.about(shown(row.about)), group, row, &flags);
    for flag in &flags {
        command = command.arg(argument(flag));
    }
    for name in row.refused {
        command = command.arg(Arg::new(*name).long(*name).hide(true).num_args(0..=1));
    }
    if matches!(row.how, How::List | How::ListOf) {
        command = command.arg(
            Arg::new(LIMIT)
                .long(LIMIT)
                .value_name("N")
                .help("Most to show")
                .default_value(MOST_LISTED)
                .value_parser(value_parser!(u64).range(1..)),
        );
    }
    command
}

/// The arguments that say what a command is about.
fn target(command: Command, group: &Group, row: &Row, flags: &[&Flag]) -> Command {
    let positional =
        |name: &'static str, help: &'static str| Arg::new(TARGET).value_name(name).help(shown(help));
    let several = match row.how {
        How::New if flags.iter().any(|flag| flag.long == "name") => {
            return command.arg(positional("NAME", "Its name.").conflicts_with("name"));
        }
        How::Special(Special::Test) => {
            let arg = positional("TRIGGER", "A trigger by name or id, or a YAML or JSON file with one.");
            return command.arg(arg.required(true));
        }
        How::Special(Special::HelpAction | Special::Publish | Special::Token) | How::New | How::List => {
            return command;
        }
        How::Each => true,
        _ => false,
    };
    let named = !group.parent.is_empty();
    let shown = if named { "NAME|ID" } else { "ID" };
    let mut arg = positional(shown, "Which one; several may be given.").num_args(1..);
    if !several {
        arg = positional(shown, "Which one.");
    }
    let mut command = command.arg(arg).arg(target_flag("id", "By id.", group, flags));
    let mut ways = vec![TARGET, "id"];
    if named {
        command = command.arg(target_flag("name", "By name.", group, flags));
        ways.push("name");
    }
    command.group(ArgGroup::new("which").args(ways).required(true))
}

/// `--id`, also as `--trigger-id`, unless another flag is called so.
fn target_flag(name: &'static str, help: &'static str, group: &Group, flags: &[&Flag]) -> Arg {
    let arg = Arg::new(name).long(name).value_name(name.to_uppercase()).help(shown(help));
    let alias = format!("{}-{name}", group.id.trim_end_matches("_id").replace('_', "-"));
    let is_taken =
        settings::is_flag(&alias) || flags.iter().any(|flag| names(flag).any(|name| name == alias));
    if is_taken { arg } else { arg.visible_alias(alias) }
}

fn names(flag: &Flag) -> impl Iterator<Item = &'static str> {
    flag.long.split('|')
}

/// A flag's first name, which is also its id.
pub(super) fn first_name(flag: &Flag) -> &'static str {
    names(flag).next().unwrap_or_default()
}

fn argument(flag: &'static Flag) -> Arg {
    let name = first_name(flag);
    let mut arg =
        Arg::new(name).long(name).help(shown(flag.help)).allow_hyphen_values(flag.kind == Kind::Data);
    for other in names(flag).skip(1) {
        arg = match other.chars().next() {
            Some(short) if other.len() == 1 => arg.short(short),
            _ => arg.visible_alias(other),
        };
    }
    let (value, several) = match flag.kind {
        Kind::Switch => return arg.action(ArgAction::SetTrue),
        Kind::Text => ("TEXT", false),
        Kind::Texts => ("TEXT", true),
        Kind::Whole(_) => ("N", false),
        Kind::Span(_) => ("DURATION", false),
        Kind::Pairs => ("KEY=VALUE", true),
        Kind::Keys => ("KEY", true),
        Kind::Word(..) => ("WORD", false),
        Kind::Words(..) => ("WORD", true),
        Kind::NameOf(_) => ("NAME", false),
        Kind::File | Kind::Secret | Kind::DataFile => ("FILE", false),
        Kind::Data => ("DATA", false),
        Kind::Json => ("JSON", true),
        Kind::Subject => ("TYPE:ID", false),
        Kind::Bindings => ("BINDING", true),
    };
    arg = arg.value_name(value).action(if several { ArgAction::Append } else { ArgAction::Set });
    match flag.kind {
        // JSON has commas of its own, and so have bindings.
        Kind::Texts | Kind::Pairs | Kind::Keys => arg.value_delimiter(','),
        Kind::Word(_, words) => arg.value_parser(PossibleValuesParser::new(words)).ignore_case(true),
        Kind::Words(_, words) => {
            arg.value_parser(PossibleValuesParser::new(words)).ignore_case(true).value_delimiter(',')
        }
        Kind::Whole(default) | Kind::Span(default) if !default.is_empty() => arg.default_value(default),
        _ => arg,
    }
}

/// The row that was asked for, and its arguments. `word` is the first one.
pub(super) fn find<'a>(
    word: &str,
    matches: &'a ArgMatches,
) -> Option<(&'static Group, &'static Row, &'a ArgMatches)> {
    let (mut path, mut inner) = (vec![word], matches);
    while let Some((word, matches)) = inner.subcommand() {
        path.push(word);
        inner = matches;
    }
    let same = |leaf: &Leaf| {
        leaf.path.iter().map(|word| word.split('|').next()).eq(path.iter().map(|word| Some(*word)))
    };
    let leaf = leaves().into_iter().find(same)?;
    Some((leaf.group, leaf.row, inner))
}
