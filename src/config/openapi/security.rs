//! `securitySchemes` and `security`: which authorizer decides who may connect.

use crate::config::authorizer;
use crate::config::fields::{Fields, Reading, Value, quote};
use crate::model::authorizer::Authorizer;

const AUTHORIZER: &str = "x-yc-apigateway-authorizer";

/// The security schemes of a document, and what it requires everywhere.
pub(super) struct Schemes<'a> {
    schemes: Vec<(&'a str, Option<Authorizer>)>,
    everywhere: Option<Value<'a>>,
}

impl<'a> Schemes<'a> {
    /// Takes them out of the document.
    pub(super) fn read(document: &mut Fields<'a>, reading: &mut Reading) -> Self {
        let components = document.get("components").map(|value| value.fields(reading));
        let schemes = components.and_then(|mut components| components.get("securitySchemes"));
        let entries = schemes.map(|schemes| schemes.entries(reading)).unwrap_or_default();
        let mut read = |(name, scheme): (&'a str, Value<'a>)| {
            let value = scheme.fields(reading).get(AUTHORIZER);
            (name, value.and_then(|value| authorizer::read(&value, reading)))
        };
        let schemes = entries.into_iter().map(&mut read).collect();
        Self { schemes, everywhere: document.get("security") }
    }

    /// Who decides about a path whose operations say `own`, which counts before what the document says. An empty list
    /// requires nothing.
    pub(super) fn required(&self, own: Option<&Value<'_>>, reading: &mut Reading) -> Option<Authorizer> {
        let list = own.or(self.everywhere.as_ref())?;
        let alternatives = list.items(reading);
        if alternatives.len() > 1 {
            list.fault(reading, "only one requirement is possible here");
        }
        let requirement = alternatives.first()?;
        let schemes = requirement.entries(reading);
        let [(name, scopes)] = &schemes[..] else {
            requirement.fault(reading, "exactly one scheme is expected here");
            return None;
        };
        let Some((_, authorizer)) = self.schemes.iter().find(|(known, _)| known == name) else {
            scopes.fault(reading, format_args!("{} is not one of components.securitySchemes", quote(name)));
            return None;
        };
        let Some(authorizer) = authorizer else {
            scopes.fault(
                reading,
                format_args!("the scheme {} has no {AUTHORIZER}: nobody would check it", quote(name)),
            );
            return None;
        };
        let items = scopes.items(reading);
        let words = items.iter().filter_map(|scope| scope.str(reading).map(ToOwned::to_owned));
        let words: Vec<String> = words.collect();
        let mut authorizer = authorizer.clone();
        match &mut authorizer {
            Authorizer::Jwt(rules) => rules.scopes.extend(words),
            Authorizer::Http(_) if !items.is_empty() => {
                let why =
                    "scopes are words of a token: the scheme has type \"http\", and nobody would check them";
                scopes.fault(reading, why);
            }
            Authorizer::Http(_) => {}
        }
        Some(authorizer)
    }
}
