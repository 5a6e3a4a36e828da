//! Paths with parameters, such as `/ws/{room}` (OpenAPI 3.0, "Path Templating").

use percent_encoding::percent_decode_str;

/// Longest path, in bytes.
const MAX_PATH: usize = 256;
/// Most parameters of one path.
const MAX_PARAMETERS: usize = 8;

/// A path of a gateway as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Compared byte for byte.
    Literal(String),
    /// `{name}`: one segment that is not empty.
    One(String),
    /// `{name+}`: all that is left, not empty. The last segment.
    Rest(String),
}

impl PathTemplate {
    /// Reads a path. The error says what is wrong with it, to be put behind the path.
    pub fn parse(path: &str) -> Result<Self, String> {
        if path.len() > MAX_PATH {
            return Err(format!("is longer than {MAX_PATH} characters"));
        }
        let Some(rest) = path.strip_prefix('/') else { return Err("must begin with '/'".to_owned()) };
        if path.contains("//") || rest.split('/').any(|segment| segment.contains("..")) {
            return Err("must not hold \"//\" or \"..\"".to_owned());
        }
        let segments: Vec<_> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        let names: Vec<_> = segments.iter().filter_map(Segment::name).collect();
        if names.len() > MAX_PARAMETERS {
            return Err(format!("has more than {MAX_PARAMETERS} parameters"));
        }
        if let Some(name) =
            names.iter().enumerate().find_map(|(n, name)| names[..n].contains(name).then_some(name))
        {
            return Err(format!("has the parameter {{{name}}} twice"));
        }
        let greedy = segments.iter().position(|segment| matches!(segment, Segment::Rest(_)));
        if greedy.is_some_and(|place| place + 1 < segments.len()) {
            return Err("may have a parameter with '+' only at its end".to_owned());
        }
        Ok(Self { segments })
    }

    /// Whether it has no parameters: one path and no other.
    pub fn is_plain(&self) -> bool {
        self.segments.iter().all(|segment| segment.name().is_none())
    }

    /// Its parameters, in order: each name, and whether it may be more than one segment.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        let named = |segment: &'_ Segment| matches!(segment, Segment::Rest(_));
        self.segments.iter().filter_map(move |segment| Some((segment.name()?, named(segment))))
    }

    /// Whether two templates match the same paths, but for names.
    pub fn is_like(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(other)) => one == other,
                (Segment::One(_), Segment::One(_)) | (Segment::Rest(_), Segment::Rest(_)) => true,
                _ => false,
            })
    }

    /// What makes one of two templates the better match, best first: literals before parameters before `{name+}`, from
    /// the left.
    pub fn rank(&self) -> impl Ord + use<> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::One(_) => 1,
            Segment::Rest(_) => 2,
        };
        self.segments.iter().map(rank).collect::<Vec<u8>>()
    }

    /// The values of the parameters, percent-decoded, if a request's path is one of the template's. Literals are
    /// compared as they stand in the request.
    pub fn matches(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut values = Vec::new();
        for segment in &self.segments {
            let whole = rest?;
            let (part, after) = match (segment, whole.split_once('/')) {
                (Segment::Rest(_), _) | (_, None) => (whole, None),
                (_, Some((part, after))) => (part, Some(after)),
            };
            match segment {
                Segment::Literal(literal) if literal == part => {}
                Segment::Literal(_) => return None,
                Segment::One(name) | Segment::Rest(name) => {
                    if part.is_empty() {
                        return None;
                    }
                    let value = percent_decode_str(part).decode_utf8().ok()?;
                    if value.chars().any(char::is_control) {
                        return None;
                    }
                    values.push((name.clone(), value.into_owned()));
                }
            }
            rest = after;
        }
        rest.is_none().then_some(values)
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
        return match text.chars().find(|c| !allowed(*c)) {
            Some('{' | '}') => Err("must have a parameter as a whole segment, such as /ws/{room}".to_owned()),
            Some(other) => Err(format!("must not hold {other:?} (no query, no fragment, no escapes)")),
            None => Ok(Segment::Literal(text.to_owned())),
        };
    };
    let (name, is_rest) = match inner.strip_suffix('+') {
        Some(name) => (name, true),
        None => (inner, false),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
        return Err("must have letters, digits, '_', '-' or '.' in the name of a parameter".to_owned());
    }
    Ok(if is_rest { Segment::Rest(name.to_owned()) } else { Segment::One(name.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, path: &str) -> Option<String> {
        let values = PathTemplate::parse(template).unwrap().matches(path)?;
        Some(values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn a_path_matches_segment_by_segment() {
        for (template, path, expected) in [
            ("/ws", "/ws", Some("")),
            ("/ws", "/ws/", None),
            ("/", "/", Some("")),
            ("/ws/", "/ws/", Some("")),
            ("/ws/{room}", "/ws/a%20b", Some("room=a b")),
            ("/ws/{room}", "/ws/", None),
            ("/ws/{room}", "/ws", None),
            ("/ws/{room}", "/ws/a/b", None),
            ("/ws/{room}", "/ws/%ff", None),
            ("/ws/{room}", "/ws/a%0d%0ab", None),
            ("/{a}/x/{b}", "/1/x/2", Some("a=1,b=2")),
            ("/{a}/x/{b}", "/1/y/2", None),
            ("/f/{rest+}", "/f/a/b%2Fc", Some("rest=a/b/c")),
            ("/f/{rest+}", "/f/", None),
        ] {
            assert_eq!(values(template, path).as_deref(), expected, "{template} {path}");
        }
    }

    #[test]
    fn faults_say_what_is_wrong() {
        for (path, words) in [
            ("ws", "begin with '/'"),
            ("/a//b", "\"//\""),
            ("/a/../b", "\"..\""),
            ("/a%20b", "'%'"),
            ("/a?b", "'?'"),
            ("/a{b}", "whole segment"),
            ("/{}", "name of a parameter"),
            ("/{a b}", "name of a parameter"),
            ("/{a}/{a}", "twice"),
            ("/{a+}/b", "at its end"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "more than 8"),
        ] {
            let fault = PathTemplate::parse(path).unwrap_err();
            assert!(fault.contains(words), "{path}: {fault}");
        }
        assert!(PathTemplate::parse(&format!("/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn literals_rank_before_parameters() {
        let template = |path| PathTemplate::parse(path).unwrap();
        let mut templates = ["/{a}/{b}", "/x/{b+}", "/x/{b}", "/x/y", "/{a}/y"].map(template);
        templates.sort_by_key(PathTemplate::rank);
        assert_eq!(templates, ["/x/y", "/x/{b}", "/x/{b+}", "/{a}/y", "/{a}/{b}"].map(template));
        assert!(template("/ws/{a}").is_like(&template("/ws/{b}")));
        assert!(!template("/ws/{a}").is_like(&template("/ws/{b+}")));
        assert!(template("/ws").is_plain() && !template("/{ws}").is_plain());
        assert_eq!(template("/{a}/{b+}").names().collect::<Vec<_>>(), [("a", false), ("b", true)]);
    }
}
