//! Reading TOML tables with errors that show the place and name what may have been meant.

use std::{ops::Range, path::Path, sync::Arc};

use rbc_compiler::{
    diagnostic::Diagnostic,
    suggest::nearest,
    syntax::{SourceFile, Span},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The text of a config file, which its tables borrow from.
pub struct Document<'a> {
    source: Arc<SourceFile>,
    text: &'a str,
}

/// One table of a document.
#[derive(Clone)]
pub struct Table<'a> {
    source: Arc<SourceFile>,
    entries: DeTable<'a>,
}

/// A value with its place.
pub struct Item<'a> {
    source: Arc<SourceFile>,
    value: Spanned<DeValue<'a>>,
}

impl<'a> Document<'a> {
    pub fn new(path: &Path, text: &'a str) -> Self {
        let name = path.display().to_string();
        Self { source: Arc::new(SourceFile::new(name, text)), text }
    }

    /// The table of everything.
    pub fn parse(&self) -> Result<Table<'a>, Diagnostic> {
        match DeTable::parse(self.text) {
            Ok(table) => {
                Ok(Table { source: Arc::clone(&self.source), entries: table.into_inner() })
            }
            Err(error) => {
                let span = error.span().unwrap_or_default();
                Err(wrong(&self.source, span, error.message()))
            }
        }
    }
}

impl<'a> Table<'a> {
    /// Refuses keys that are not among `known`.
    pub fn only(&self, known: &[&str]) -> Result<(), Diagnostic> {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let message = format!("unknown key {name:?}");
                let error = wrong(&self.source, key.span(), &message);
                return Err(match nearest(name, known.iter().copied()) {
                    Some(near) => error.help(format!("did you mean {near:?}?")),
                    None => error.help(format!("known are {}", known.join(", "))),
                });
            }
        }
        Ok(())
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        let value = self.entries.get(key)?.clone();
        Some(Item { source: Arc::clone(&self.source), value })
    }

    /// All keys with their places and values.
    pub fn entries(&self) -> impl Iterator<Item = (String, Range<usize>, Item<'a>)> {
        self.entries.iter().map(|(key, value)| {
            let item = Item { source: Arc::clone(&self.source), value: value.clone() };
            (key.get_ref().to_string(), key.span(), item)
        })
    }

    /// An error at a place in this table's file.
    pub fn wrong_at(&self, span: Range<usize>, message: &str) -> Diagnostic {
        wrong(&self.source, span, message)
    }
}

impl<'a> Item<'a> {
    pub fn table(&self) -> Result<Table<'a>, Diagnostic> {
        match self.value.get_ref() {
            DeValue::Table(entries) => {
                Ok(Table { source: Arc::clone(&self.source), entries: entries.clone() })
            }
            _ => Err(self.wrong("want a table")),
        }
    }

    pub fn flag(&self) -> Result<bool, Diagnostic> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("want true or false"))
    }

    pub fn text(&self) -> Result<String, Diagnostic> {
        let text = self.value.get_ref().as_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong("want a text in quotes"))
    }

    /// A list, or one value in place of a list of one.
    pub fn list(&self) -> Vec<Item<'a>> {
        let item = |value: &Spanned<DeValue<'a>>| Item {
            source: Arc::clone(&self.source),
            value: value.clone(),
        };
        match self.value.get_ref() {
            DeValue::Array(values) => values.iter().map(item).collect(),
            _ => vec![item(&self.value)],
        }
    }

    /// An error about this value.
    pub fn wrong(&self, message: &str) -> Diagnostic {
        wrong(&self.source, self.value.span(), message)
    }
}

fn wrong(source: &Arc<SourceFile>, span: Range<usize>, message: &str) -> Diagnostic {
    Diagnostic::error("config", message).at(source, Span::new(span.start, span.end))
}
