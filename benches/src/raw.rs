//! throwaway
use bytes::BytesMut;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as R};
use wombat_proto::{CellName, frame};
struct C {
    s: std::net::TcpStream,
    b: BytesMut,
}
impl C {
    fn recv(&mut self) -> Response {
        loop {
            if let Some(r) = frame::read(&mut self.b).unwrap() {
                return r;
            }
            let mut t = [0u8; 65536];
            let n = self.s.read(&mut t).unwrap();
            assert!(n > 0);
            self.b.extend_from_slice(&t[..n]);
        }
    }
    fn send(&mut self, r: &[Request]) {
        let mut o = BytesMut::new();
        for r in r {
            frame::write(r, &mut o);
        }
        self.s.write_all(&o).unwrap();
    }
}
fn main() {
    let dir = tempfile::tempdir_in("/work").unwrap();
    let t = Instant::now();
    let mut config = wombat_server::Config::new(CellName::parse("b").unwrap(), dir.path());
    config.listen = "127.0.0.1:0".into();
    config.session_lease = Duration::from_secs(60);
    let server = wombat_server::Server::start(config).unwrap();
    println!("ready {:?}", t.elapsed());
    let s = std::net::TcpStream::connect(server.address()).unwrap();
    s.set_nodelay(true).unwrap();
    let mut c = C { s, b: BytesMut::new() };
    let rq = |n, call| Request { number: n, call: Some(call), ..Request::default() };
    c.send(&[
        rq(1, Call::Hello(wire::Hello { version: 1, cell: "".into() })),
        rq(2, Call::CreateSession(wire::CreateSession { client: "x".into() })),
    ]);
    c.recv();
    let Some(R::SessionOpened(o)) = c.recv().result else { panic!() };
    let sq = |n: u64, ack: u64, call| Request {
        session: o.session,
        epoch: o.epoch,
        number: n,
        acknowledged: ack,
        call: Some(call),
    };
    c.send(&[sq(
        1,
        0,
        Call::Open(wire::Open {
            path: "/ls/b/f".into(),
            mode: 3,
            create: 1,
            node: Some(wire::NewNode::default()),
            ..Default::default()
        }),
    )]);
    let Some(R::Opened(h)) = c.recv().result else { panic!() };
    let h = h.handle;
    let mut n = 1u64;
    for round in 0..2 {
        let _ = round;
        for (name, window, total, write) in [
            ("write1", 1usize, 5000usize, true),
            ("write256", 256, 200000, true),
            ("read1", 1, 20000, false),
            ("read256", 256, 1000000, false),
        ] {
            let mk = |n: u64, ack: u64| {
                sq(
                    n,
                    ack,
                    if write {
                        Call::SetContents(wire::SetContents {
                            handle: h,
                            contents: vec![7u8; 100].into(),
                            if_generation: 0,
                        })
                    } else {
                        Call::GetContents(wire::GetContents { handle: h })
                    },
                )
            };
            let t = Instant::now();
            let base = n;
            let mut got = 0usize;
            let mut sent = 0usize;
            let first: Vec<_> = (0..window)
                .map(|_| {
                    n += 1;
                    sent += 1;
                    mk(n, base)
                })
                .collect();
            c.send(&first);
            while got < total {
                let r = c.recv();
                if let Some(R::Error(e)) = &r.result {
                    panic!("{e:?}");
                }
                got += 1;
                let mut more = 1;
                while let Some(r) = frame::read::<Response>(&mut c.b).unwrap() {
                    if let Some(R::Error(e)) = &r.result {
                        panic!("{e:?}");
                    }
                    got += 1;
                    more += 1;
                }
                let v: Vec<_> = (0..more)
                    .filter_map(|_| {
                        (sent < total).then(|| {
                            n += 1;
                            sent += 1;
                            mk(n, base + got as u64)
                        })
                    })
                    .collect();
                if !v.is_empty() {
                    c.send(&v);
                }
            }
            println!("{name}: {:.0}/s", total as f64 / t.elapsed().as_secs_f64());
        }
    }
    let st = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", st.lines().find(|l| l.starts_with("VmRSS")).unwrap());
    server.stop().unwrap();
}
