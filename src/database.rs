//! What our SQLite databases have in common: a stamp that says whose they are, and a folder for this user alone.

use std::fs;
use std::io;
use std::path::Path;

use rusqlite::Connection;

/// A kind of database.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// SQLite's `application_id` of it: four letters.
    pub application: i64,
    /// The version of its tables, SQLite's `user_version`. One with another version is refused, not changed.
    pub version: i64,
    /// The statements that make its tables.
    pub tables: &'static str,
}

/// Whose a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Ours, of this version.
    Ours,
    /// Somebody else's, or of this version.
    Foreign(i64),
}

impl Form {
    /// Makes the tables of a new database; of another one says whose it is.
    pub fn prepare(&self, db: &Connection) -> rusqlite::Result<Stamp> {
        if stamp(db)? == (0, 0) {
            let Self { application, version, tables } = self;
            db.execute_batch(&format!(
                "BEGIN; {tables} PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT;"
            ))?;
        }
        self.check(db)
    }

    /// Says whose a database is.
    pub fn check(&self, db: &Connection) -> rusqlite::Result<Stamp> {
        let (application, version) = stamp(db)?;
        let is_ours = (application, version) == (self.application, self.version);
        Ok(if is_ours { Stamp::Ours } else { Stamp::Foreign(version) })
    }
}

fn stamp(db: &Connection) -> rusqlite::Result<(i64, i64)> {
    let application = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok((application, db.pragma_query_value(None, "user_version", |row| row.get(0))?))
}

/// Makes a folder that nobody else may read.
pub fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { application: 7, version: 2, tables: "CREATE TABLE a (b);" };

    #[test]
    fn a_new_database_gets_its_tables_and_another_is_left_alone() {
        let db = Connection::open_in_memory().unwrap();
        assert_eq!(FORM.check(&db).unwrap(), Stamp::Foreign(0));
        assert_eq!(FORM.prepare(&db).unwrap(), Stamp::Ours);
        db.execute("INSERT INTO a VALUES (1)", []).unwrap();
        assert_eq!(FORM.prepare(&db).unwrap(), Stamp::Ours);
        for other in [Form { version: 3, ..FORM }, Form { application: 8, ..FORM }] {
            assert_eq!(other.prepare(&db).unwrap(), Stamp::Foreign(2));
        }
        assert_eq!(db.query_row("SELECT count(*) FROM a", [], |row| row.get(0)), Ok(1));
    }
}
