//! Which things `rbc du` lists and `rbc prune` evicts, in the words of docker's filters.

use std::str::FromStr;

use super::inventory::{Item, ItemKind};

/// A condition such as `type=cache-mount`, `shared`, `inuse=false` or `id!=0123`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFilter {
    field: Field,
    /// Whether the field must not be so.
    is_negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// Its kind.
    Kind(ItemKind),
    /// Its id begins like this, as `rbc du` shows it or with what stands before.
    IdPrefix(String),
    /// Its id has this in it.
    IdPart(String),
    /// Its name is this one.
    Name(String),
    /// Its name has this in it.
    NamePart(String),
    /// A running process holds it.
    InUse,
    /// It has bytes in common with others, or belongs to an image as well.
    Shared,
    /// Steps write to it: it is no content that a digest stands for.
    Mutable,
}

/// What a filter may be, for messages.
const USAGE: &str = "want type=KIND, id=PREFIX, name=TEXT (or description=TEXT), inuse, shared, \
                     private, mutable or immutable; with != for all others, ~= for a part of an \
                     id or a name, and =false for the opposite";

impl ItemFilter {
    /// Whether a thing is meant.
    pub fn fits(&self, item: &Item) -> bool {
        let bare_id = bare(&item.id);
        let fits = match &self.field {
            Field::Kind(kind) => item.kind == *kind,
            Field::IdPrefix(prefix) => bare_id.starts_with(bare(prefix)),
            Field::IdPart(part) => item.id.contains(part.as_str()),
            Field::Name(name) => item.name == *name,
            Field::NamePart(part) => item.name.contains(part.as_str()),
            Field::InUse => item.in_use,
            Field::Shared => item.shared > 0 || item.part_of.is_some(),
            Field::Mutable => item.kind.is_mutable(),
        };
        fits != self.is_negated
    }

    /// Whether it names what is meant, rather than a property that many things have.
    pub(super) fn is_specific(&self) -> bool {
        !self.is_negated && !matches!(self.field, Field::InUse | Field::Shared | Field::Mutable)
    }

    /// What several filters are about: those of one key are alternatives.
    fn key(&self) -> (u8, bool) {
        let of_field = match self.field {
            Field::Kind(_) => 0,
            Field::IdPrefix(_) | Field::IdPart(_) => 1,
            Field::Name(_) | Field::NamePart(_) => 2,
            Field::InUse => 3,
            Field::Shared => 4,
            Field::Mutable => 5,
        };
        (of_field, self.is_negated)
    }
}

/// Whether filters mean a thing: of those that say what something is like one must fit for each
/// key, of those that say what it is not all.
pub fn all_fit(filters: &[ItemFilter], item: &Item) -> bool {
    filters.iter().all(|filter| match filter.is_negated {
        true => filter.fits(item),
        false => filters.iter().any(|other| other.key() == filter.key() && other.fits(item)),
    })
}

/// An id without what stands before its digits.
pub fn bare(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.strip_prefix("diff-").unwrap_or(id)
}

impl FromStr for ItemFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['=', '!', '~']).unwrap_or(text.len());
        let (name, rest) = text.split_at(at);
        let (operator, value) = match rest {
            "" => ("", ""),
            _ => ["==", "!=", "~=", "="]
                .into_iter()
                .find_map(|operator| Some((operator, rest.strip_prefix(operator)?)))
                .ok_or(USAGE)?,
        };
        let is_part = operator == "~=";
        let is_negated = operator == "!=";
        let named = |field: Field| match (operator, value) {
            ("", _) | (_, "") => Err(format!("{name} lacks a value: {USAGE}")),
            _ => Ok(Self { field, is_negated }),
        };
        let property = |field: Field, is_opposite: bool| {
            let is_wanted = match (operator, value) {
                ("", _) => true,
                ("=" | "==" | "!=", "true" | "1") => true,
                ("=" | "==" | "!=", "false" | "0") => false,
                _ => return Err(format!("{name} is true or false, not {value:?}")),
            };
            Ok(Self { field, is_negated: (is_wanted == is_negated) != is_opposite })
        };
        match name {
            "type" if is_part => Err(format!("type takes no ~=: {USAGE}")),
            "type" => {
                let kind = ItemKind::from_name(value).ok_or_else(|| {
                    let names = ItemKind::ALL.map(ItemKind::name);
                    format!("no type {value:?}: want {}", names.join(", "))
                })?;
                named(Field::Kind(kind))
            }
            "id" if is_part => named(Field::IdPart(value.to_owned())),
            "id" => named(Field::IdPrefix(value.to_owned())),
            "name" | "description" if is_part => named(Field::NamePart(value.to_owned())),
            "name" | "description" => named(Field::Name(value.to_owned())),
            "inuse" => property(Field::InUse, false),
            "shared" => property(Field::Shared, false),
            "private" => property(Field::Shared, true),
            "mutable" => property(Field::Mutable, false),
            "immutable" => property(Field::Mutable, true),
            "parent" | "parents" => {
                Err("layers have no parents here: name the step with name~=TEXT, or use id=PREFIX"
                    .to_owned())
            }
            _ => Err(format!("no filter {name:?}: {USAGE}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ItemFilter {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_property_and_its_opposite_have_several_spellings() {
        for (one, other) in [
            ("shared", "shared=true"),
            ("shared", "private=false"),
            ("shared", "private!=true"),
            ("private", "shared=0"),
            ("private", "shared!=1"),
            ("mutable", "immutable=false"),
            ("immutable", "mutable==false"),
            ("inuse", "inuse!=false"),
            ("type=regular", "type==layer"),
            ("description~=RUN", "name~=RUN"),
        ] {
            assert_eq!(parsed(one), parsed(other), "{one} and {other}");
        }
        assert_ne!(parsed("shared"), parsed("private"));
        assert_ne!(parsed("id=1"), parsed("id!=1"));
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for (text, says) in [
            ("type=x", "no type \"x\": want layer, "),
            ("type", "no type"),
            ("id=", "id lacks a value"),
            ("id", "id lacks a value"),
            ("name~=", "name lacks a value"),
            ("shared=maybe", "true or false"),
            ("shared~=true", "true or false"),
            ("colour=red", "no filter \"colour\": want type=KIND"),
            ("id!x", "want type=KIND"),
            ("parents=x", "name~=TEXT"),
            ("", "no filter"),
        ] {
            let error = text.parse::<ItemFilter>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
