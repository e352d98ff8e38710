//! Keywords of a Maildir: `.keywords` says which one a letter `a` to `z` of a file's name stands for.

use super::{MAX_KEYWORDS, Maildir};
use crate::flags::{Keyword, Table};
use crate::trouble::Result;

impl Maildir {
    pub(super) fn load_keywords(&mut self) -> Result<()> {
        let text = self.dir.read(".keywords", 8192)?.unwrap_or_default();
        let mut table = Table::default();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((letter, word)) = line.split_once(' ') else {
                continue;
            };
            let expected = b'a' + u8::try_from(table.names().len()).unwrap_or(26);
            // A damaged line ends the list: letters behind it would get other meanings.
            match Keyword::new(word).filter(|_| letter.as_bytes() == [expected]) {
                Some(keyword) if table.names().len() < MAX_KEYWORDS => table.bit(&keyword),
                _ => break,
            };
        }
        if table.names().len() >= self.table.names().len() {
            self.table = table;
        }
        Ok(())
    }

    /// The letters of keywords; new ones are written down first. Those without room are dropped.
    pub(super) fn learn_keywords(&mut self, keywords: &[Keyword]) -> Result<u64> {
        let known = |table: &Table, k: &Keyword| table.names().iter().any(|n| n.is(k));
        if keywords.iter().any(|k| !known(&self.table, k)) {
            let _lock = self.uid_lock()?;
            self.load_keywords()?;
            let mut table = self.table.clone();
            for keyword in keywords {
                if table.names().len() < MAX_KEYWORDS || known(&table, keyword) {
                    table.bit(keyword);
                }
            }
            let line = |(letter, k): (char, &Keyword)| format!("{letter} {k}\n");
            let text: String = ('a'..='z').zip(table.names()).map(line).collect();
            self.dir.replace(".keywords", text.as_bytes(), 0o600)?;
            self.table = table;
        }
        let mut table = self.table.clone();
        let kept = keywords.iter().filter(|k| known(&self.table, k));
        Ok(kept.fold(0, |bits, k| bits | table.bit(k)))
    }
}
