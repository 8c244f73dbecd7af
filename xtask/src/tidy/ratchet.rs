//! How many findings of a rule are tolerated: a number per rule that goes down and never up.
//!
//! A rule that is new in an old code base starts with what is there; from then on nobody adds to it. Raising a number
//! is only possible by hand, where a reviewer sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The tolerated number of findings for each ratcheted rule; a rule that is not named tolerates none.
#[derive(Debug, Default)]
pub(super) struct Ratchet {
    tolerated: BTreeMap<String, usize>,
}

impl Ratchet {
    pub(super) fn load(root: &Path) -> Result<Self> {
        let path = file(root);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let tolerated = serde_json::from_str(&text).with_context(|| format!("{} holds something else", path.display()))?;
        Ok(Self { tolerated })
    }

    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.tolerated)? + "\n";
        std::fs::write(file(root), text).context("cannot write the ratchet")
    }

    pub(super) fn tolerated(&self, rule: &str) -> usize {
        self.tolerated.get(rule).copied().unwrap_or(0)
    }

    /// Records `count` for the rule; refuses to raise.
    pub(super) fn lower(&mut self, rule: &str, count: usize) -> Result<()> {
        let tolerated = self.tolerated(rule);
        ensure!(count <= tolerated, "{rule}: {count} found, {tolerated} tolerated: mend them, the ratchet is not raised");
        self.tolerated.insert(rule.to_owned(), count);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tolerated.keys().map(String::as_str)
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("xtask/tidy-ratchet.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_turns_one_way() {
        let mut ratchet = Ratchet { tolerated: BTreeMap::from([("long".to_owned(), 3)]) };
        ratchet.lower("long", 2).expect("fewer is welcome");
        assert_eq!(ratchet.tolerated("long"), 2);
        assert!(ratchet.lower("long", 3).is_err());
        assert_eq!(ratchet.tolerated("long"), 2);
        assert!(ratchet.lower("unheard of", 1).is_err());
        ratchet.lower("unheard of", 0).expect("none is what a new rule tolerates");
    }
}
