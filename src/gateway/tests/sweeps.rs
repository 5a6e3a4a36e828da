//! Many connections at once, over real sockets.

use std::net::IpAddr;

use uuid::Uuid;

use super::*;
use crate::gateway::sweep::Sweeps;
use crate::model::connection::{Connection, Ended, Page, Reach, Selection, after};

fn of(path: &str) -> Selection {
    Selection { path: Some(path.into()), ..all() }
}

fn all() -> Selection {
    Selection::of("main".into())
}

impl Bench {
    async fn clients(&self, path: &str, count: usize) -> Vec<Client> {
        let (address, path) = (self.address, path.to_owned());
        let connect = move || (0..count).map(|_| Client::connect(address, &path)).collect();
        actix_rt::task::spawn_blocking(connect).await.unwrap()
    }

    /// Asks from another thread, as calls do.
    fn sweeps(&self) -> Sweeps {
        Sweeps::new(Arc::clone(&self.directory), self.listener.workers())
    }

    fn connections(&self) -> Connections {
        Connections::new(Arc::clone(&self.directory), self.listener.workers())
    }

    /// Every page of a list, up to one that says it is the last.
    async fn pages(&self, selection: &Selection, size: usize) -> Vec<Vec<Connection>> {
        let (mut pages, mut start) = (Vec::new(), Uuid::nil());
        loop {
            let page = self.connections().list(selection.clone(), start, size).await.unwrap();
            pages.push(page.connections);
            let Some(last) = page.next else { return pages };
            start = after(last);
        }
    }
}

fn ids(clients: &[Client]) -> Vec<Uuid> {
    clients.iter().map(Client::id).collect()
}

impl Client {
    fn id(&self) -> Uuid {
        let mut lines = self.head.lines();
        lines
            .find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: "))
            .and_then(|id| id.parse().ok())
            .unwrap()
    }
}

#[actix::test]
async fn lists_give_everyone_once_in_the_order_of_coming() {
    let bench = Bench::new(2, 65_536, 1000);
    let mut expected = Vec::new();
    let mut open = Vec::new();
    for (path, count) in [("/ws", 300), ("/other", 7), ("/ws", 40)] {
        let clients = bench.clients(path, count).await;
        expected.extend(ids(&clients).into_iter().map(|id| (id, path)));
        open.extend(clients);
    }
    until("all", || bench.directory.clients().get(&expected[346].0).is_some()).await;
    for size in [1000, 347, 346, 100, 1] {
        let pages = bench.pages(&all(), size).await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == size), "{size}");
        let found: Vec<_> = pages.iter().flatten().map(|found| (found.id, &*found.path.path)).collect();
        assert_eq!(found, expected, "{size}");
    }
    let others: Vec<_> = bench.pages(&of("/other"), 5).await.iter().map(Vec::len).collect();
    assert_eq!(others, [5, 2]);
    assert_eq!(bench.connections().list(of("/none"), Uuid::nil(), 5).await, None);
    let nowhere = Selection::of("none".into());
    assert_eq!(bench.connections().list(nowhere, Uuid::nil(), 5).await, None);
    bench.listener.stop(Duration::ZERO).await;
}

#[actix::test]
async fn a_list_is_of_those_for_whom_all_holds() {
    let bench = Bench::new(2, 65_536, 1000);
    let early = bench.clients("/ws", 20).await;
    let middle = crate::model::connection::connected_at(early[19].id()).unwrap() + Duration::from_millis(1);
    until("the next millisecond", || SystemTime::now() > middle).await;
    let late = bench.clients("/ws", 10).await;
    until("all", || bench.directory.clients().get(&late[9].id()).is_some()).await;
    let found = async |selection: Selection| -> Vec<Uuid> {
        bench.pages(&selection, 7).await.concat().iter().map(|found| found.id).collect()
    };
    let before = Selection { connected_before: Some(middle), ..of("/ws") };
    assert_eq!(found(before.clone()).await, ids(&early));
    assert_eq!(found(Selection { connected_after: Some(middle), ..of("/ws") }).await, ids(&late));
    assert_eq!(found(Selection { connected_after: Some(middle), ..before }).await, Vec::<Uuid>::new());
    let local = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(found(Selection { source: Some(local.into()), ..of("/ws") }).await.len(), 30);
    let elsewhere = Selection { source: "10.0.0.0/8".parse().ok(), ..of("/ws") };
    assert_eq!(found(elsewhere.clone()).await, Vec::<Uuid>::new());
    assert_eq!(found(Selection { subject: Some("ann".into()), ..of("/ws") }).await, Vec::<Uuid>::new());
    assert_eq!(
        found(Selection { idle: Some(Duration::from_secs(600)), ..of("/ws") }).await,
        Vec::<Uuid>::new()
    );
    // A page that finds few does not look at all for ever: the next one goes on.
    let few = bench.sweeps().page(elsewhere, Uuid::nil(), 7, 25).await.unwrap();
    assert_eq!(few, Page { connections: Vec::new(), next: Some(late[9].id()) });
    let first = bench.connections().list(all(), Uuid::nil(), 1).await.unwrap().connections.remove(0);
    assert_eq!((first.source_ip, first.waiting_bytes, first.is_behind), (Some(local), 0, false));
    bench.listener.stop(Duration::ZERO).await;
}

#[actix::test]
async fn a_message_to_all_comes_to_each_once_and_to_nobody_else() {
    let bench = Bench::new(2, 65_536, 1000);
    let clients = bench.clients("/ws", 300).await;
    let mut other = bench.client("/other").await;
    until("all", || bench.directory.clients().get(&other.id()).is_some()).await;
    let sent = bench.connections().broadcast(of("/ws"), b"\xff", false, LIMIT).await;
    assert_eq!(sent, Some(Reach { queued: 300, ..Reach::default() }));
    bench.broadcast("/ws", &[b"1"]).await;
    bench.broadcast("/other", &[b"2"]).await;
    let read = move || {
        for mut client in clients {
            assert_eq!(client.frame(), (0x82, vec![0xff]));
            assert_eq!(client.frame(), (0x81, b"1".to_vec()));
        }
        other.frame()
    };
    let other = actix_rt::task::spawn_blocking(read).await.unwrap();
    assert_eq!(other, (0x81, b"2".to_vec()));
    assert_eq!(bench.connections().broadcast(of("/none"), b"x", true, LIMIT).await, None);
    bench.listener.stop(Duration::ZERO).await;
}

#[actix::test]
async fn a_client_without_room_is_counted_and_gets_whole_messages_all_the_same() {
    const PATHS: usize = 60;
    let bench = Bench::new(1, 64 * 1024 * 1024, 1000);
    let (mut slow, mut quick) = (bench.client("/ws").await, bench.client("/ws").await);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        loop {
            if tell.send(quick.message().0.len()).is_err() {
                return;
            }
        }
    });
    // More than sockets take: one of these is half-sent when the others come.
    let large = vec![b'x'; 130_000];
    for _ in 0..PATHS {
        bench.broadcast("/ws", &[&large]).await;
    }
    for _ in 0..PATHS {
        told.recv().await.unwrap();
    }
    let own = vec![b'y'; 100_000];
    for expected in [(2, 0), (2, 0), (1, 1)] {
        let sent = bench.connections().broadcast(of("/ws"), &own, true, LIMIT).await.unwrap();
        assert_eq!((sent.queued, sent.no_room), expected);
        assert_eq!(told.recv().await, Some(own.len()));
    }
    let page = bench.connections().list(of("/ws"), Uuid::nil(), 2).await.unwrap();
    let waiting: Vec<_> = page.connections.iter().map(|found| found.waiting_bytes > 300_000).collect();
    assert_eq!(waiting, [true, false]);
    let all = actix_rt::task::spawn_blocking(move || {
        (0..PATHS + 2).map(|_| slow.message().0.into_bytes()).collect::<Vec<_>>()
    });
    let all = all.await.unwrap();
    assert_eq!(all.iter().filter(|message| **message == own).count(), 2);
    let of_path = |message: &&Vec<u8>| message.len() == large.len() + br#"{"messages":[]}"#.len();
    assert_eq!(all.iter().filter(of_path).count(), PATHS);
    bench.listener.stop(Duration::ZERO).await;
}

fn closed(closed: u64) -> Option<Ended> {
    Some(Ended { closed, is_cut_short: false })
}

#[actix::test]
async fn a_call_on_many_whose_time_is_over_says_how_far_it_has_come() {
    const CLIENTS: usize = 600;
    let bench = Bench::new(2, 65_536, 1000);
    let clients = bench.clients("/ws", CLIENTS).await;
    let last = clients[CLIENTS - 1].id();
    until("all", || bench.directory.clients().get(&last).is_some()).await;
    // However soon the time is over: those that are counted are reached, and all are when nothing is said.
    let (mut queued, mut whole) = (0, 0);
    for micros in [0, 100, 300, 1000, 3000, 10_000_000] {
        let patience = Duration::from_micros(micros);
        let reach = bench.connections().broadcast(of("/ws"), b"x", true, patience).await.unwrap();
        assert!(reach.is_cut_short || reach.queued == CLIENTS as u64, "{reach:?}");
        assert!(micros > 0 || reach == Reach { is_cut_short: true, ..Reach::default() }, "{reach:?}");
        queued += reach.queued as usize;
        whole += usize::from(!reach.is_cut_short);
    }
    assert!(whole > 0);
    let none = Ended { closed: 0, is_cut_short: true };
    assert_eq!(bench.connections().disconnect_all(of("/ws"), Duration::ZERO).await, Some(none));
    assert_eq!(bench.connections().disconnect_all(of("/ws"), LIMIT).await, closed(CLIENTS as u64));
    let ends = move || clients.into_iter().map(|mut client| client.rest().0.len()).collect::<Vec<_>>();
    let got = actix_rt::task::spawn_blocking(ends).await.unwrap();
    assert!(got.iter().all(|got| *got >= whole));
    // What a worker answers too late is not counted.
    assert!(got.iter().sum::<usize>() >= queued, "{queued}");
    bench.listener.stop(Duration::ZERO).await;
}

#[actix::test]
async fn many_are_closed_at_once_and_the_others_stay() {
    let bench = Bench::new(2, 65_536, 1000);
    let clients = bench.clients("/ws", 280).await;
    let other = bench.client("/other").await;
    until("all", || bench.directory.clients().get(&other.id()).is_some()).await;
    let nobody = Selection { subject: Some("ann".into()), ..all() };
    assert_eq!(bench.connections().disconnect_all(nobody, LIMIT).await, closed(0));
    assert_eq!(bench.connections().disconnect_all(of("/ws"), LIMIT).await, closed(280));
    // They are closing, so they are not there to be closed again, or to be sent to.
    assert_eq!(bench.connections().disconnect_all(of("/ws"), LIMIT).await, closed(0));
    assert_eq!(bench.connections().broadcast(of("/ws"), b"x", true, LIMIT).await, Some(Reach::default()));
    assert_eq!(bench.pages(&all(), 10).await.concat().len(), 1);
    let ends = move || clients.into_iter().map(|mut client| client.rest()).collect::<Vec<_>>();
    for (frames, code) in actix_rt::task::spawn_blocking(ends).await.unwrap() {
        assert_eq!((frames.len(), code), (0, Some(1001)));
    }
    until("the end of all", || bench.directory.connections() == 1).await;
    assert_eq!(bench.connections().disconnect_all(all(), LIMIT).await, closed(1));
    drop(other);
    bench.listener.stop(Duration::ZERO).await;
}
