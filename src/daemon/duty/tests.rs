use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::*;

/// Long enough for anything to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a direction has moved: the name of its thread, and the number that was in it.
type Moved = (String, u32);

/// A direction from a socket to a channel, which takes its time.
struct Line {
    sockets: Arc<Mutex<Arc<UnixDatagram>>>,
    socket: Arc<UnixDatagram>,
    moved: Sender<Moved>,
    takes: Duration,
}

impl Direction for Line {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        [self.socket.as_fd()].into_iter().collect()
    }

    fn is_stale(&self) -> bool {
        !Arc::ptr_eq(&self.socket, &self.sockets.lock().unwrap())
    }

    fn renew(&mut self) {
        self.socket = Arc::clone(&self.sockets.lock().unwrap());
    }

    fn pass(&mut self, _now: Instant, _source: usize) -> io::Result<()> {
        let mut number = [0; 4];
        match self.socket.recv(&mut number) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let _nobody_looks = self.moved.send((thread, u32::from_le_bytes(number)));
        let end = clock::now() + self.takes;
        while clock::now() < end {
            core::hint::spin_loop();
        }
        Ok(())
    }
}

/// The far end of a [`Line`].
struct End {
    sockets: Arc<Mutex<Arc<UnixDatagram>>>,
    into: UnixDatagram,
    moved: Receiver<Moved>,
}

fn line(takes: Duration) -> (Line, End) {
    let (into, socket) = UnixDatagram::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = Arc::new(socket);
    let sockets = Arc::new(Mutex::new(Arc::clone(&socket)));
    let (sender, moved) = mpsc::channel();
    let end = End { sockets: Arc::clone(&sockets), into, moved };
    (Line { sockets, socket, moved: sender, takes }, end)
}

impl End {
    fn send(&self, number: u32) {
        self.into.send(&number.to_le_bytes()).unwrap();
    }

    fn next(&self) -> Moved {
        self.moved.recv_timeout(PATIENCE).unwrap()
    }

    /// The thread that moves a number which is sent now.
    fn mover(&self) -> String {
        self.send(0);
        self.next().0
    }
}

struct Running {
    inbound: End,
    outbound: End,
    wakers: [Waker; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// A batch of inbound takes longer than the window in which the first thread is looked at.
    fn start() -> Self {
        let (inbound, inbound_end) = line(BUSY_WINDOW * 2);
        let (outbound, outbound_end) = line(Duration::ZERO);
        let Threads { first, second, wakers } = threads(inbound, outbound).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |name: &str, body: Box<dyn FnOnce(&AtomicBool) + Send>| {
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || body(&stop)).unwrap()
        };
        let threads = vec![
            spawn("first", Box::new(move |stop| first.run(stop).unwrap())),
            spawn("second", Box::new(move |stop| second.run(stop).unwrap())),
        ];
        Self { inbound: inbound_end, outbound: outbound_end, wakers, stop, threads }
    }

    /// Keeps the first thread busy until the second has outbound.
    fn make_busy(&self) {
        let end = clock::now() + PATIENCE;
        while self.outbound.mover() != "second" {
            assert!(clock::now() < end, "the first thread keeps outbound");
            self.inbound.send(0);
            self.inbound.next();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

#[test]
fn one_thread_serves_both_directions_while_there_is_little_to_do() {
    let running = Running::start();
    assert_eq!(running.outbound.mover(), "first");
    assert_eq!(running.inbound.mover(), "first");
}

#[test]
fn busy_thread_gives_outbound_away_and_gets_it_back_when_it_is_quiet() {
    let running = Running::start();
    for _again in 0..2 {
        running.make_busy();
        let end = clock::now() + PATIENCE;
        while running.outbound.mover() != "first" {
            assert!(clock::now() < end, "the second thread keeps outbound");
        }
    }
}

#[test]
fn nothing_is_lost_or_overtaken_when_outbound_changes_hands() {
    let running = Running::start();
    let (mut sent, mut moved, mut threads) = (1, Vec::new(), Vec::new());
    let end = clock::now() + PATIENCE;
    // Until it has gone to the second thread and come back.
    while threads != ["first", "second", "first"] {
        assert!(clock::now() < end, "it went to {threads:?} alone");
        if threads.len() < 2 {
            running.inbound.send(0);
        }
        for _ in 0..3 {
            running.outbound.send(sent);
            sent += 1;
        }
        for _ in 0..3 {
            let (thread, number) = running.outbound.next();
            if threads.last() != Some(&thread) {
                threads.push(thread);
            }
            moved.push(number);
        }
    }
    assert_eq!(moved, (1..sent).collect::<Vec<_>>());
}

#[test]
fn new_sources_are_read_by_whoever_has_the_direction() {
    let mut running = Running::start();
    for busy in [false, true] {
        if busy {
            running.make_busy();
        }
        let (into, socket) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        *running.outbound.sockets.lock().unwrap() = Arc::new(socket);
        let before = core::mem::replace(&mut running.outbound.into, into);
        running.wakers.iter().for_each(Waker::wake);
        running.outbound.send(7);
        assert_eq!(running.outbound.next().1, 7);
        // The one before is read no more, and gone: nobody holds its other end.
        let end = clock::now() + PATIENCE;
        while before.send(&[0; 4]).is_ok() {
            assert!(clock::now() < end, "the old source is still there");
        }
    }
}

#[test]
fn meter_begins_anew_when_the_window_is_over() {
    let start = clock::now();
    let ms = Duration::from_millis;
    let mut meter = Meter::new(start);
    meter.worked(ms(1));
    assert_eq!(meter.over(ms(2), start + ms(1)), None);
    meter.worked(ms(1));
    assert_eq!(meter.over(ms(2), start + ms(4)), Some((ms(2), ms(4))));
    assert_eq!(meter.over(ms(2), start + ms(5)), None);
    assert_eq!(meter.over(ms(2), start + ms(6)), Some((ms(0), ms(2))));
}
