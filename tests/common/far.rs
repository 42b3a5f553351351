//! A long way: what is sent to an address arrives at another one, and some time later. Only connections pass.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes on their way, and when they arrive.
type UnderWay = (Instant, Vec<u8>);

/// Connects what is sent to the first address with the second one, for as long as the process lives.
pub(crate) fn relay_slowly(from: &str, to: String, one_way: Duration) {
    let listener = TcpListener::bind(from).unwrap();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(&to)) else { continue };
            for (source, target) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let (depart, arrive) = mpsc::channel::<UnderWay>();
                thread::spawn(move || send_off(source, &depart, one_way));
                thread::spawn(move || hand_over(target, &arrive));
            }
        }
    });
}

fn send_off(mut source: TcpStream, depart: &mpsc::Sender<UnderWay>, one_way: Duration) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read) = source.read(&mut bytes)
        && read > 0
        && depart.send((Instant::now() + one_way, bytes[..read].to_vec())).is_ok()
    {}
}

fn hand_over(mut target: TcpStream, arrive: &mpsc::Receiver<UnderWay>) {
    let _no_delay_of_its_own = target.set_nodelay(true);
    for (due, bytes) in arrive {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if target.write_all(&bytes).is_err() {
            break;
        }
    }
    let _it_is_gone = target.shutdown(Shutdown::Both);
}
