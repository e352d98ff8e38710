//! The same engine over a socket.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use store::wire::{read_frame, write_frame};
use store::{Answer, Expunge, Request, Set, worker};

use crate::house::{folder, houses};

fn ask(socket: &mut UnixStream, request: &Request) -> Answer {
    write_frame(socket, &request.encode()).unwrap();
    answer(socket)
}

fn answer(socket: &mut UnixStream) -> Answer {
    Answer::decode(&read_frame(socket).unwrap().unwrap()).unwrap()
}

#[test]
fn requests_are_answered_and_changes_told_once() {
    for house in houses() {
        let (mut front, back) = UnixStream::pair().unwrap();
        front
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let session = house.session();
        let thread = std::thread::spawn(move || worker::serve(back, session));

        let inbox = Request::Select {
            folder: folder("INBOX"),
            read_only: false,
        };
        assert!(matches!(ask(&mut front, &inbox), Answer::Selected(s) if s.exists == 0));
        assert_eq!(ask(&mut front, &Request::Watch(true)), Answer::Done);
        // At once, so that nothing falls between.
        assert_eq!(answer(&mut front), Answer::Changed);
        let poll = Request::Poll { expunges: true };
        assert!(matches!(ask(&mut front, &poll), Answer::Updates(u) if u.is_empty()));

        house.deliver("d1", b"Subject: 1\r\n\r\n");
        assert_eq!(answer(&mut front), Answer::Changed);
        let mut exists = None;
        // A Poll may itself be seen as a change, so it is answered and told again.
        for _ in 0..20 {
            write_frame(&mut front, &poll.encode()).unwrap();
            let mut got = answer(&mut front);
            while got == Answer::Changed {
                got = answer(&mut front);
            }
            let Answer::Updates(updates) = got else {
                panic!("{got:?}")
            };
            exists = exists.or(updates.exists);
            if exists.is_some() {
                break;
            }
        }
        assert_eq!(exists, Some(1));

        write_frame(&mut front, b"nonsense").unwrap();
        let mut got = answer(&mut front);
        while got == Answer::Changed {
            got = answer(&mut front);
        }
        assert!(matches!(got, Answer::Failed(_)));
        let remove = Request::Expunge(Expunge::Messages(Set::all()));
        write_frame(&mut front, &remove.encode()).unwrap();
        let mut got = answer(&mut front);
        while got == Answer::Changed {
            got = answer(&mut front);
        }
        assert!(matches!(got, Answer::Updates(u) if u.expunged == [1]));
        drop(front);
        // Its last push may have met the closed end.
        thread.join().unwrap().ok();
    }
}
