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
    /// The version of its tables, SQLite's `user_version`. One with another version is refused, not changed, unless
    /// `upgrades` lead from it to this one.
    pub version: i64,
    /// The statements that bring an older version to the next, the last of them to `version`.
    pub upgrades: &'static [&'static str],
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
    /// Makes the tables of a new database, and brings one of an older version to this one; of another one says whose
    /// it is.
    pub fn prepare(&self, db: &Connection) -> rusqlite::Result<Stamp> {
        let Self { application, version, upgrades, tables } = self;
        let (of, found) = stamp(db)?;
        if (of, found) == (0, 0) {
            db.execute_batch(&format!(
                "BEGIN; {tables} PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT;"
            ))?;
        }
        let first = version - upgrades.len() as i64;
        if of == *application && (first..*version).contains(&found) {
            let steps = upgrades[(found - first) as usize..].concat();
            db.execute_batch(&format!("BEGIN; {steps} PRAGMA user_version = {version}; COMMIT;"))?;
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

/// Makes a file that nobody else may read, unless it is there; then only its rights are changed.
pub fn create_private_file(file: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(file)?;
    #[cfg(unix)]
    opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    drop(opened);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { application: 7, version: 2, upgrades: &[], tables: "CREATE TABLE a (b);" };

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

    #[test]
    fn an_older_database_is_brought_to_this_version_and_keeps_what_it_has() {
        let db = Connection::open_in_memory().unwrap();
        FORM.prepare(&db).unwrap();
        db.execute("INSERT INTO a VALUES (1)", []).unwrap();
        let steps = &["ALTER TABLE a ADD c;", "ALTER TABLE a ADD d;"];
        let newer = Form { version: 4, upgrades: steps, ..FORM };
        assert_eq!(newer.prepare(&db).unwrap(), Stamp::Ours);
        assert_eq!(newer.prepare(&db).unwrap(), Stamp::Ours);
        assert_eq!(
            db.query_row("SELECT b FROM a WHERE c IS NULL AND d IS NULL", [], |row| row.get(0)),
            Ok(1)
        );
        let too_new = Form { version: 6, upgrades: &["SELECT 1;"], ..FORM };
        assert_eq!(too_new.prepare(&db).unwrap(), Stamp::Foreign(4));
    }
}
