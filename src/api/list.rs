//! Lists: their filters, pages, and the tokens that lead to the next page.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::fault::Fault;

/// Items of a page when the request is silent.
const DEFAULT_SIZE: usize = 100;

/// How many items a page has.
pub(super) fn size(asked: i64) -> usize {
    usize::try_from(asked).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_SIZE)
}

/// The key that a page begins after; empty for the first.
pub(super) fn after(token: &str) -> Result<String, Fault> {
    let bad = || Fault::field("page_token", "The token is not one that a list has given");
    if token.is_empty() {
        return Ok(String::new());
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    text.strip_prefix("after:").map(str::to_owned).ok_or_else(bad)
}

/// The token of the page that begins after this key.
pub(super) fn token(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("after:{key}"))
}

/// Takes a page from items that come after the token's key. Gives the token of the next page, if there is more.
pub(super) fn page<T>(
    items: impl Iterator<Item = T>,
    size: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let mut items: Vec<T> = items.take(size + 1).collect();
    let next = if items.len() > size {
        items.truncate(size);
        items.last().map(|last| token(&key(last))).unwrap_or_default()
    } else {
        String::new()
    };
    (items, next)
}

/// Takes a page from a list that is made anew for each call; its tokens are places in it.
pub(super) fn slice<T>(all: Vec<T>, size: i64, token: &str) -> Result<(Vec<T>, String), Fault> {
    let after = match after(token)?.as_str() {
        "" => 0,
        place => {
            place.parse().map_err(|_| Fault::field("page_token", "The token is not one of this list"))?
        }
    };
    let rest = all.into_iter().enumerate().skip(after);
    let (page, next) = page(rest, self::size(size), |(index, _)| (index + 1).to_string());
    Ok((page.into_iter().map(|(_, item)| item).collect(), next))
}

/// What a list is filtered by: conditions on the name that all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    names: Vec<String>,
    is: bool,
}

impl Filter {
    /// Reads `name="a"`, with `=`, `!=`, `IN (…)`, `NOT IN (…)`, joined by `AND`; quotes may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let mut words = Words { rest: text };
        let mut conditions = Vec::new();
        if words.peek().is_none() {
            return Ok(Self::default());
        }
        loop {
            conditions.push(words.condition().ok_or_else(|| {
                let form = "conditions on `name` with =, !=, IN (…) or NOT IN (…), joined by AND";
                Fault::field("filter", format!("{text:?} cannot be read; a filter is {form}"))
            })?);
            match words.next() {
                None => return Ok(Self(conditions)),
                Some(word) if word.eq_ignore_ascii_case("and") => {}
                Some(word) => {
                    return Err(Fault::field("filter", format!("AND is expected in {text:?}, not {word:?}")));
                }
            }
        }
    }

    /// Whether something with this name is in the list.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.0.iter().all(|condition| condition.names.iter().any(|one| one == name) == condition.is)
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.trim_start().chars().next()
    }

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let end = match first {
            '"' | '\'' => rest[1..].find(first).map(|at| at + 2)?,
            '!' if rest.starts_with("!=") => 2,
            '=' | '(' | ')' | ',' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "=!(),\"'".contains(c)).unwrap_or(rest.len()),
        };
        self.rest = &rest[end.max(1).min(rest.len())..];
        Some(&rest[..end.max(1)])
    }

    fn value(&mut self) -> Option<String> {
        let word = self.next()?;
        let is_mark = matches!(word, "=" | "!=" | "(" | ")" | ",");
        (!is_mark).then(|| word.trim_matches(['"', '\'']).to_owned())
    }

    fn condition(&mut self) -> Option<Condition> {
        if self.next()? != "name" {
            return None;
        }
        let operator = self.next()?.to_ascii_lowercase();
        match &*operator {
            "=" | "!=" => Some(Condition { names: vec![self.value()?], is: operator == "=" }),
            "in" => Some(Condition { names: self.values()?, is: true }),
            "not" if self.next()?.eq_ignore_ascii_case("in") => {
                Some(Condition { names: self.values()?, is: false })
            }
            _ => None,
        }
    }

    fn values(&mut self) -> Option<Vec<String>> {
        if self.next()? != "(" {
            return None;
        }
        let mut values = vec![self.value()?];
        loop {
            match self.next()? {
                ")" => return Some(values),
                "," => values.push(self.value()?),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_of_every_form_are_understood() {
        for (filter, takes, leaves) in [
            ("", "a", None),
            ("name=a", "a", Some("b")),
            ("name = \"a b\"", "a b", Some("a")),
            ("name='a'", "a", Some("b")),
            ("name!=\"a\"", "b", Some("a")),
            ("name IN (\"a\", 'b',c)", "c", Some("d")),
            ("name not in (a)", "b", Some("a")),
            ("name!=a AND name!=b", "c", Some("b")),
        ] {
            let parsed = Filter::parse(filter).unwrap();
            assert!(parsed.takes(takes), "{filter}");
            assert!(leaves.is_none_or(|name| !parsed.takes(name)), "{filter}");
        }
        for bad in
            ["name", "id=a", "name=", "name==a", "name=a name=b", "name IN a", "name IN (", "name=\"a", "&"]
        {
            assert_eq!(Filter::parse(bad).unwrap_err().fields[0].0, "filter", "{bad}");
        }
    }

    #[test]
    fn tokens_lead_from_page_to_page() {
        let items = ["a", "b", "c", "d", "e"];
        let (mut token, mut seen) = (String::new(), Vec::<&&str>::new());
        loop {
            let from = after(&token).unwrap();
            let rest = items.iter().filter(|item| ***item > *from);
            let (page, next) = page(rest, 2, |item| (**item).to_owned());
            seen.extend(page);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, items.iter().collect::<Vec<_>>());
        assert!(after("rubbish!").is_err() && after("YWJj").is_err());
    }

    proptest! {
        #[test]
        fn no_filter_makes_it_panic(text in "\\PC{0,40}") {
            let _ = Filter::parse(&text).map(|filter| filter.takes("a"));
        }
    }
}
