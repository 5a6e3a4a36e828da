//! How many connections the public port takes, by the files that the process may open: one each.
//!
//! A port that takes no more than it has files for lets the others wait, and takes the next one the moment a place is
//! free. One that runs out of files finds out by a failure, and can only try again after a while.

/// Files that the process needs for itself, whatever its configuration: databases, logs, ports, event loops.
const OWN: usize = 64;
/// Files of one worker: its event loops.
const OF_WORKER: usize = 4;
/// Most files that are kept for devices, brokers and the management port.
const MOST_FOR_OTHERS: usize = 1024;
/// Most connections beyond the clients.
const MOST_SPARE: usize = 1024;

/// Connections of the public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Most WebSocket clients.
    pub(super) clients: usize,
    /// Most connections of one worker: its part of the clients, and some whose requests are still to come, or to be
    /// refused.
    pub(super) of_worker: usize,
}

impl Room {
    /// With so many files, for as many as `wanted` clients. At least one of each, however few files there are.
    pub(super) fn of(files: u64, workers: usize, wanted: usize) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let free = files.saturating_sub(OWN + OF_WORKER * workers);
        let ours = free - (free / 4).min(MOST_FOR_OTHERS);
        let spare = (ours / 4).min(MOST_SPARE);
        let clients = wanted.min(ours - spare).max(1);
        Self { clients, of_worker: (clients + spare).div_ceil(workers).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_files_enough_there_is_room_for_all_who_are_wanted_and_some_to_refuse() {
        assert_eq!(Room::of(1 << 20, 4, 50_000), Room { clients: 50_000, of_worker: 12_756 });
        assert_eq!(Room::of(u64::MAX, 1, 10_000_000), Room { clients: 10_000_000, of_worker: 10_001_024 });
        assert_eq!(Room::of(1 << 20, 2, 1), Room { clients: 1, of_worker: 513 });
    }

    #[test]
    fn with_few_files_there_is_room_for_few_and_files_are_left() {
        assert_eq!(Room::of(1024, 2, 50_000), Room { clients: 536, of_worker: 357 });
        assert_eq!(Room::of(128, 2, 50_000), Room { clients: 32, of_worker: 21 });
        assert_eq!(Room::of(16, 2, 50_000), Room { clients: 1, of_worker: 1 });
    }

    proptest! {
        #[test]
        fn connections_never_take_the_files_of_the_rest(files in 256..1_u64 << 24, workers in 1..=32_usize, wanted in 1..1_usize << 24) {
            let room = Room::of(files, workers, wanted);
            let connections = room.of_worker * workers;
            prop_assert!(room.clients <= wanted && room.clients < connections);
            prop_assert!(OWN + OF_WORKER * workers + connections < files as usize);
        }
    }
}
