//! One copy of what many batches repeat: agents, nodes and interfaces. Connections keep them for as long as
//! they live, and comparing two that are one copy does not read them.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use flowtrail_schema::Interface;
use foldhash::fast::RandomState;

/// Different ones remembered of each sort, at most: 5,000 nodes with some pods each. Beyond it all are
/// forgotten, and those that come next are copies of their own.
const MAX_REMEMBERED: usize = 100_000;

/// The copies.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: Copies<str>,
    interfaces: Copies<Interface>,
}

#[derive(Debug)]
struct Copies<T: ?Sized>(HashSet<Arc<T>, RandomState>);

impl Interner {
    /// The copy of a text.
    pub(crate) fn text(&mut self, text: Arc<str>) -> Arc<str> {
        self.texts.copy(text)
    }

    /// The copy of an interface.
    pub(crate) fn interface(&mut self, interface: Arc<Interface>) -> Arc<Interface> {
        self.interfaces.copy(interface)
    }
}

impl<T: ?Sized> Default for Copies<T> {
    fn default() -> Self {
        Self(HashSet::default())
    }
}

impl<T: ?Sized + Eq + Hash> Copies<T>
where
    Arc<T>: Borrow<T>,
{
    fn copy(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.0.get(&*value) {
            return Arc::clone(known);
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_copy_and_their_number_is_bounded() {
        let mut interner = Interner::default();
        let first = interner.text("node-a".into());
        assert!(Arc::ptr_eq(&first, &interner.text("node-a".into())));
        for number in 0..=MAX_REMEMBERED {
            interner.text(number.to_string().into());
        }
        assert!(interner.texts.0.len() <= MAX_REMEMBERED);
    }
}
