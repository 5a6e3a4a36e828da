//! [`Repository`]: which tags a repository has and which images they name, and what follows when that changes. Pure.
//!
//! Senders repeat, lose and reorder what they tell, so everything here is about what *is*: what is known already
//! gives no [`Change`]. Where a notification can be older than what is known, it is not believed but asked after:
//! a [`Doubt`]. Times are those of the registry's clock, in microseconds since 1970.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::container::ContainerEventType;

/// Two settings of one tag within this time may have been told in the wrong order: their writers were parallel.
const PARALLEL: i64 = 5_000_000;

/// What is known of a repository, or of the part of it that a notification is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    /// By tag.
    pub tags: BTreeMap<String, Tag>,
    /// By digest. Every image that has a tag is here.
    pub images: BTreeMap<String, Image>,
}

/// A tag that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The image it names.
    pub digest: String,
    /// When that was so.
    pub as_of: i64,
}

/// A manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Whether it is one of those that are told. It stays as it was when it came.
    pub is_told: bool,
    /// When it was there.
    pub as_of: i64,
}

/// A manifest that was pushed.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// What was pushed.
    pub digest: &'a str,
    /// The tag it was pushed under.
    pub tag: Option<&'a str>,
    /// Whether it is one of those that are told.
    pub is_told: bool,
    /// Whether it is told even without a tag.
    pub tells_untagged: bool,
}

/// What has changed, to be told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub event_type: ContainerEventType,
    /// To which image.
    pub digest: String,
    /// The tag; empty for an image that was deleted, or that has none.
    pub tag: String,
    /// All tags that the change is about: those that a deleted image had.
    pub tags: Vec<String>,
}

/// What has to be asked of the registry, since what was told may be out of date.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doubt {
    /// What a tag names now, if anything.
    Tag(String),
    /// Whether an image is there.
    Image(String),
}

/// What follows from a notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In the order in which they are told.
    pub changes: Vec<Change>,
    /// What to ask.
    pub doubts: Vec<Doubt>,
}

/// What the registry itself said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Tags, each with its image, or without one if it is not set.
    pub tags: BTreeMap<String, Option<Seen>>,
    /// Whether these are all tags there are.
    pub is_complete: bool,
    /// Tags that are there, perhaps, and could not be read.
    pub unread: BTreeSet<String>,
    /// Images that are not there.
    pub gone: BTreeSet<String>,
    /// When.
    pub as_of: i64,
}

/// An image as the registry shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its digest.
    pub digest: String,
    /// Whether it is one of those that are told.
    pub is_told: bool,
}

impl Repository {
    /// A manifest was pushed at this time; `is_unsure` if the sender does not keep an order, or it comes late.
    pub fn push(&mut self, push: Push<'_>, at: i64, is_unsure: bool) -> Outcome {
        let mut out = Outcome::default();
        let Some(tag) = push.tag else {
            // Without a tag it is part of another image, or refers to one, or its tag is still to come.
            if push.tells_untagged && !self.images.contains_key(push.digest) {
                self.images.insert(push.digest.to_owned(), Image { is_told: push.is_told, as_of: at });
                if push.is_told {
                    out.changes.push(Change::of(ContainerEventType::CreateImage, push.digest, ""));
                }
            }
            return out;
        };
        match self.tags.get(tag) {
            Some(known) if known.digest == push.digest => {
                self.confirm(tag, push.digest, at);
                return out;
            }
            Some(known) if at < known.as_of => {
                out.doubts.push(Doubt::Tag(tag.to_owned()));
                return out;
            }
            Some(known) if is_unsure || at - known.as_of < PARALLEL => {
                out.doubts.push(Doubt::Tag(tag.to_owned()));
            }
            None if is_unsure => out.doubts.push(Doubt::Tag(tag.to_owned())),
            _ => {}
        }
        self.set(tag, push.digest, push.is_told, at, &mut out.changes);
        out
    }

    /// An image was deleted, and with it its tags.
    pub fn delete_image(&mut self, digest: &str, at: i64) -> Outcome {
        let mut out = Outcome::default();
        match self.images.get(digest) {
            // A blob, or something that was never told.
            None => {}
            Some(known) if at < known.as_of => out.doubts.push(Doubt::Image(digest.to_owned())),
            Some(_) => self.remove_images([digest.to_owned()], &mut out.changes),
        }
        out
    }

    /// A tag was removed; of this image, if the sender says which. The image stays, unless the registry does not keep
    /// images without a tag.
    pub fn delete_tag(&mut self, tag: &str, digest: Option<&str>, at: i64, is_unsure: bool) -> Outcome {
        let mut out = Outcome::default();
        let Some(known) = self.tags.get(tag) else { return out };
        if digest.is_some_and(|digest| digest != known.digest) {
            // It names another image by now.
            if is_unsure {
                out.doubts.push(Doubt::Tag(tag.to_owned()));
            }
            return out;
        }
        if at < known.as_of {
            out.doubts.push(Doubt::Tag(tag.to_owned()));
            return out;
        }
        let digest = known.digest.clone();
        self.remove_tag(tag, &mut out.changes);
        if is_unsure {
            out.doubts.push(Doubt::Tag(tag.to_owned()));
        }
        if self.tags_of(&digest).next().is_none() {
            out.doubts.push(Doubt::Image(digest));
        }
        out
    }

    /// The repository was deleted with all that it had.
    pub fn delete_all(&mut self, at: i64) -> Outcome {
        let mut out = Outcome::default();
        let (newer, gone): (Vec<_>, Vec<_>) = self
            .images
            .iter()
            .map(|(digest, image)| (digest.clone(), image.as_of))
            .partition(|(_, as_of)| at < *as_of);
        out.doubts.extend(newer.into_iter().map(|(digest, _)| Doubt::Image(digest)));
        self.remove_images(gone.into_iter().map(|(digest, _)| digest), &mut out.changes);
        out
    }

    /// What must have happened, as the registry says that things are so now.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        self.remove_images(snapshot.gone.iter().cloned(), &mut changes);
        let is_set = |tag: &str| match snapshot.tags.get(tag) {
            Some(seen) => seen.is_some(),
            None => !snapshot.is_complete,
        };
        let removed: Vec<_> = self.tags.keys().filter(|tag| !is_set(tag)).cloned().collect();
        for tag in removed {
            self.remove_tag(&tag, &mut changes);
        }
        for (tag, seen) in &snapshot.tags {
            let Some(seen) = seen else { continue };
            if self.tags.get(tag).is_none_or(|known| known.digest != seen.digest) {
                self.set(tag, &seen.digest, seen.is_told, snapshot.as_of, &mut changes);
            }
        }
        changes
    }

    /// The latest time of all that is known.
    pub fn as_of(&self) -> i64 {
        let times =
            self.tags.values().map(|tag| tag.as_of).chain(self.images.values().map(|image| image.as_of));
        times.max().unwrap_or(0)
    }

    /// The tags of an image.
    pub fn tags_of<'a>(&'a self, digest: &'a str) -> impl Iterator<Item = &'a str> {
        self.tags.iter().filter(move |(_, tag)| tag.digest == digest).map(|(name, _)| name.as_str())
    }

    fn confirm(&mut self, tag: &str, digest: &str, at: i64) {
        if let Some(tag) = self.tags.get_mut(tag) {
            tag.as_of = tag.as_of.max(at);
        }
        if let Some(image) = self.images.get_mut(digest) {
            image.as_of = image.as_of.max(at);
        }
    }

    /// Sets a tag that names nothing yet, or something else.
    fn set(&mut self, tag: &str, digest: &str, is_told: bool, at: i64, changes: &mut Vec<Change>) {
        self.remove_tag(tag, changes);
        let known = self.images.get(digest).copied();
        let image = known.unwrap_or(Image { is_told, as_of: at });
        let tell = |event_type| Change::of(event_type, digest, tag);
        if image.is_told {
            changes.extend(known.is_none().then(|| tell(ContainerEventType::CreateImage)));
            changes.push(tell(ContainerEventType::CreateImageTag));
        }
        self.images.insert(digest.to_owned(), Image { as_of: image.as_of.max(at), ..image });
        self.tags.insert(tag.to_owned(), Tag { digest: digest.to_owned(), as_of: at });
    }

    fn remove_tag(&mut self, tag: &str, changes: &mut Vec<Change>) {
        let Some(Tag { digest, .. }) = self.tags.remove(tag) else { return };
        if self.images.get(&digest).is_some_and(|image| image.is_told) {
            changes.push(Change::of(ContainerEventType::DeleteImageTag, &digest, tag));
        }
    }

    fn remove_images(&mut self, digests: impl IntoIterator<Item = String>, changes: &mut Vec<Change>) {
        let mut gone: BTreeMap<String, Vec<String>> = digests
            .into_iter()
            .filter(|digest| self.images.contains_key(digest))
            .map(|digest| (digest, vec![]))
            .collect();
        if gone.is_empty() {
            return;
        }
        for (name, tag) in &self.tags {
            if let Some(tags) = gone.get_mut(&tag.digest) {
                tags.push(name.clone());
            }
        }
        for (digest, tags) in gone {
            if self.images.get(&digest).is_some_and(|image| image.is_told) {
                let tags = tags.clone();
                changes.push(Change { tags, ..Change::of(ContainerEventType::DeleteImage, &digest, "") });
            }
            tags.iter().for_each(|tag| self.remove_tag(tag, changes));
            self.images.remove(&digest);
        }
    }
}

impl Snapshot {
    /// Leaves out what may be out of date: it was `read` and is different `now`, or is among the names that notifications
    /// were about meanwhile; and what could not be read.
    pub fn settled(mut self, read: &Repository, now: &Repository, touched: &BTreeSet<String>) -> Self {
        let unread = std::mem::take(&mut self.unread);
        let is_touched = |tag: &str, digest: Option<&str>| {
            unread.contains(tag)
                || touched.contains(tag)
                || digest.is_some_and(|digest| touched.contains(digest))
                || read.tags.get(tag) != now.tags.get(tag)
        };
        let listed = self.tags.iter().map(|(tag, seen)| (tag, seen.as_ref().map(|seen| &*seen.digest)));
        let known = now.tags.iter().map(|(tag, of)| (tag, Some(&*of.digest)));
        let unsettled: BTreeSet<String> = listed
            .chain(known.filter(|_| self.is_complete))
            .filter(|(tag, digest)| is_touched(tag, *digest))
            .map(|(tag, _)| tag.clone())
            .collect();
        for tag in unsettled {
            let stays = now.tags.get(&tag).map(|of| Seen { digest: of.digest.clone(), is_told: true });
            self.tags.insert(tag, stays);
        }
        self.gone
            .retain(|digest| !touched.contains(digest) && read.images.get(digest) == now.images.get(digest));
        self
    }

    /// Images that are known and have no tag here, and so may be gone.
    pub fn untagged(&self, known: &Repository) -> BTreeSet<String> {
        let tagged: BTreeSet<_> = self.tags.values().flatten().map(|seen| seen.digest.as_str()).collect();
        known.images.keys().filter(|digest| !tagged.contains(digest.as_str())).cloned().collect()
    }

    /// Whether it takes anything away from what is known.
    pub fn removes(&self, known: &Repository) -> bool {
        let is_gone = |tag: &String| match self.tags.get(tag) {
            Some(seen) => seen.is_none(),
            None => self.is_complete && !self.unread.contains(tag),
        };
        !self.gone.is_empty() || known.tags.keys().any(is_gone)
    }
}

impl Change {
    fn of(event_type: ContainerEventType, digest: &str, tag: &str) -> Self {
        let tags = if tag.is_empty() { Vec::new() } else { vec![tag.to_owned()] };
        Self { event_type, digest: digest.to_owned(), tag: tag.to_owned(), tags }
    }
}

#[cfg(test)]
mod tests;
