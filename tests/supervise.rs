//! What runs under a lock is stopped before the lock can be lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/pty.rs"]
mod pty;

use common::{Serve, WOMBAT, is_alive, is_stopped, serve, signal, wait_for};
use pty::{CTRL_BACKSLASH, CTRL_C, CTRL_Z, Pty};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Every way to run a command under a lock.
const HOLDERS: [&[&str]; 3] = [
    &["lock", "/ls/local/lock"],
    &["elect", "/ls/local/election", "--value", "me", "--once"],
    &["semaphore", "/ls/local/semaphore", "--permits", "1"],
];

/// Starts processes in all ways to get away: in the background, in a session of its own, as an orphan in a
/// session of its own, deaf to SIGTERM. Notes itself and the four of them.
const FAMILY: &str = "
    note='echo $$ >> $0; exec sleep 1000'
    echo $$ >> $1
    sh -c \"$note\" $1 &
    setsid sh -c \"$note\" $1 &
    (setsid sh -c \"$note\" $1 &)
    (setsid sh -c \"trap '' TERM HUP; $note\" $1 &)
    wait";

/// Runs `wombat` with a shell script, which gets the name of a file for notes.
fn run_script(serve: &Serve, wombat: &[&str], script: &str, notes: &Path) -> Child {
    let mut command = serve.wombat(wombat);
    command.args(["--", "sh", "-c", script, "job"]).arg(notes);
    // A group of its own, as shells make one for each job.
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Sends a signal to a process, or to all of its process group.
fn send(name: &str, to: &Child, group: bool) {
    let id = if group { format!("-{}", to.id()) } else { to.id().to_string() };
    assert!(Command::new("kill").args(["-s", name, "--", &id]).status().unwrap().success());
}

/// How a process ends.
#[track_caller]
fn end(process: &mut Child) -> ExitStatus {
    wait_for("the end of a process", || process.try_wait().unwrap())
}

/// The processes that a script has noted, once there are so many.
fn all_noted(notes: &Path, count: usize) -> Vec<u32> {
    wait_for("the notes", || {
        let text = std::fs::read_to_string(notes).ok()?;
        let pids: Vec<u32> = text.lines().map_while(|line| line.parse().ok()).collect();
        (pids.len() == count && text.ends_with('\n')).then_some(pids)
    })
}

/// Runs `wombat lock` with a shell script.
fn lock(serve: &Serve, script: &str, notes: &Path) -> Child {
    run_script(serve, &["lock", "/ls/local/l"], script, notes)
}

/// The process that a script has noted.
fn noted(notes: &Path) -> u32 {
    all_noted(notes, 1)[0]
}

#[test]
fn the_status_of_the_command_is_passed_on() {
    let (_dir, serve) = serve("12s");
    serve.fails(9, &["lock", "/ls/local/l", "--", "sh", "-c", "exit 9"]);
    serve.fails(143, &["lock", "/ls/local/l", "--", "sh", "-c", "kill -TERM $$"]);
    serve.fails(127, &["lock", "/ls/local/l", "--", "no-such-command"]);
    serve.fails(126, &["lock", "/ls/local/l", "--", "/dev/null"]);
    assert_eq!(serve.ok(&["locks", "--json"]), "[]\n", "nothing is left locked");
}

#[test]
fn nothing_outlives_wombat_whatever_ends_it() {
    let (dir, serve) = serve("2s");
    std::thread::scope(|scope| {
        for holder in HOLDERS {
            let (dir, serve) = (dir.path(), &serve);
            scope.spawn(move || {
                for (last, group) in [("KILL", false), ("KILL", true), ("ALRM", false), ("TERM", true)] {
                    let notes = dir.join(format!("{}-{last}-{group}", holder[0]));
                    let mut wombat = run_script(serve, holder, FAMILY, &notes);
                    let family = all_noted(&notes, 5);
                    send(last, &wombat, group);
                    serve.ok(&[holder, &["--", "true"]].concat());
                    let left: Vec<_> = family.iter().filter(|&&pid| is_alive(pid)).collect();
                    assert!(left.is_empty(), "{holder:?}, {last}: {left:?} run beside the next holder");
                    end(&mut wombat);
                }
            });
        }
        for replicas in ["1", "3"] {
            let (dir, serve) = (dir.path(), &serve);
            scope.spawn(move || {
                let notes = dir.join(format!("dev-{replicas}"));
                let mut wombat = run_script(serve, &["dev", "--replicas", replicas], FAMILY, &notes);
                let family = all_noted(&notes, 5);
                signal(wombat.id(), "KILL");
                end(&mut wombat);
                for pid in family {
                    wait_for("the family to die", || (!is_alive(pid)).then_some(()));
                }
            });
        }
    });
}

#[test]
fn a_stopped_wombat_loses_its_command_before_its_lock() {
    let (dir, serve) = serve("4s");
    std::thread::scope(|scope| {
        for holder in HOLDERS {
            let (dir, serve) = (dir.path(), &serve);
            scope.spawn(move || {
                for group in [false, true] {
                    let notes = dir.join(format!("{}-{group}", holder[0]));
                    let script = "trap '' TERM; echo $$ > $1; exec sleep 1000";
                    let mut wombat = run_script(serve, holder, script, &notes);
                    let job = noted(&notes);
                    send("STOP", &wombat, group);
                    // A zombie is dead, too.
                    let check = format!("! grep -q '^State:[[:space:]]*[^ZX]' /proc/{job}/status");
                    serve.ok(&[holder, &["--", "sh", "-c", &check]].concat());
                    send("CONT", &wombat, group);
                    assert_eq!(end(&mut wombat).code(), Some(7), "{holder:?}");
                }
            });
        }
    });
}

#[test]
fn a_killed_or_stopped_guardian_frees_no_command() {
    let (dir, mut serve) = serve("2s");
    let (killed, stopped) = (dir.path().join("killed"), dir.path().join("stopped"));
    let script = format!("echo $PPID >> $1; {FAMILY}");
    let mut with_killed = run_script(&serve, &["lock", "/ls/local/killed"], &script, &killed);
    let mut with_stopped = run_script(&serve, &["lock", "/ls/local/stopped"], &script, &stopped);
    let (killed, stopped) = (all_noted(&killed, 6), all_noted(&stopped, 6));
    signal(killed[0], "KILL");
    assert_eq!(end(&mut with_killed).code(), Some(1));
    assert_eq!(killed.into_iter().find(|&pid| is_alive(pid)), None);
    // The guardian cannot act, so that wombat has to.
    serve.kill();
    signal(stopped[0], "STOP");
    assert_eq!(end(&mut with_stopped).code(), Some(7));
    assert_eq!(stopped.into_iter().find(|&pid| is_alive(pid)), None);
}

#[test]
fn what_the_command_leaves_running_is_stopped_before_the_release() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    // The script ends when all have noted themselves. Two of them could go on without end.
    let script = "
        sleep 1000 & echo $! >> $1
        setsid sh -c 'trap \"echo asked > $0.asked; exit\" TERM; echo $$ >> $0; while :; do sleep 0.02; done' $1 &
        setsid sh -c 'trap \"\" TERM; echo $$ >> $0; while :; do sleep 0.02; done' $1 &
        while [ $(wc -l < $1) -lt 3 ]; do sleep 0.02; done";
    let mut holder = lock(&serve, script, &notes);
    assert!(end(&mut holder).success());
    assert_eq!(all_noted(&notes, 3).into_iter().find(|&pid| is_alive(pid)), None);
    assert!(dir.path().join("notes.asked").exists(), "it had time to stop by itself");
}

#[test]
fn orphans_of_the_command_are_buried_while_it_runs() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let script = "for i in $(seq 50); do (sh -c 'echo $$ >> $0' $1 &); done; exec sleep 1000";
    let mut holder = lock(&serve, script, &notes);
    for orphan in all_noted(&notes, 50) {
        wait_for("an orphan's burial", || (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));
    }
    signal(holder.id(), "TERM");
    assert_eq!(end(&mut holder).code(), Some(143));
}

#[test]
fn signals_go_to_the_command_and_its_answer_counts() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let script = "trap 'exit 33' TERM; echo $$ > $1; while :; do sleep 0.05; done";
    let mut holder = lock(&serve, script, &notes);
    noted(&notes);
    signal(holder.id(), "TERM");
    assert_eq!(end(&mut holder).code(), Some(33));
}

#[test]
fn a_stopped_command_ends_by_a_signal_to_wombat() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let mut holder = lock(&serve, "echo $$ > $1; exec sleep 1000", &notes);
    let job = noted(&notes);
    signal(job, "STOP");
    wait_for("the stop", || is_stopped(job).then_some(()));
    signal(holder.id(), "TERM");
    assert_eq!(end(&mut holder).code(), Some(143));
}

#[test]
fn repeated_interrupts_kill_a_command_that_goes_on() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let mut holder =
        lock(&serve, "trap 'echo 2 >> $1' INT; echo 1 >> $1; while :; do sleep 0.02; done", &notes);
    for interrupts in 1..=2 {
        all_noted(&notes, interrupts);
        signal(holder.id(), "INT");
    }
    all_noted(&notes, 3);
    let status = wait_for("the end", || {
        signal(holder.id(), "INT");
        holder.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(137));
}

#[test]
fn ignored_signals_stay_ignored() {
    let (dir, serve) = serve("12s");
    let start = |ignored: &str, program: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{ignored} exec \"$@\""), "sh"]).args(program);
        serve.environment(&mut command);
        command
    };
    let run = |ignored: &str, wombat: &[&str]| {
        let mut command =
            start(ignored, &[wombat, &["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]].concat());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for ignored in ["", "trap '' HUP INT QUIT PIPE USR1 CHLD TERM;"] {
        let bare = run(ignored, &[]);
        for holder in HOLDERS {
            // An election tells of itself first.
            let under = run(ignored, &[&[WOMBAT], holder, &["--"]].concat());
            assert!(under.ends_with(&bare), "{holder:?}, started with {ignored:?}: {under} for {bare}");
        }
        assert_eq!(run(ignored, &[WOMBAT, "dev", "--"]), bare, "dev, started with {ignored:?}");
    }
    let notes = dir.path().join("notes");
    let script = format!("echo $$ > {0}; until [ -e {0}.go ]; do sleep 0.02; done", notes.display());
    let mut nohup =
        start("trap '' HUP;", &[WOMBAT, "lock", "/ls/local/l", "--", "sh", "-c", &script]).spawn().unwrap();
    noted(&notes);
    signal(nohup.id(), "HUP");
    std::fs::write(dir.path().join("notes.go"), "").unwrap();
    assert!(end(&mut nohup).success(), "the hang-up was ignored");
}

/// An interactive shell on a terminal, which waits for its first command.
fn shell(serve: &Serve) -> Pty {
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("PS1", "@ ").env("TERM", "dumb");
    serve.environment(&mut bash);
    let mut shell = Pty::start(&bash);
    shell.expect("@ ");
    shell
}

/// A command line whose command sets its traps, notes itself, and then runs the script.
fn locked(traps: &str, script: &str, notes: &Path) -> String {
    let notes = notes.display();
    format!("wombat lock /ls/local/l -- sh -c '{traps} echo $$ > {notes}; {script}'")
}

#[test]
fn the_keys_of_a_terminal_reach_the_command_once() {
    let (dir, serve) = serve("60s");
    let notes = dir.path().join("notes");
    let mut shell = shell(&serve);
    shell.press(&format!("{}; echo \"co\"de=$?\n", locked("", "read it; echo got-$it", &notes)));
    noted(&notes);
    shell.press("typed\n");
    shell.expect("got-typed");
    shell.expect("code=0");
    // One that counts interrupts, and ends by SIGQUIT. It waits, so that it handles each at once.
    std::fs::remove_file(&notes).unwrap();
    let counts = locked("trap \"echo i-n-t\" INT;", "while :; do read it; done", &notes);
    shell.press(&format!("{counts}; echo \"co\"de=$?\n"));
    noted(&notes);
    for presses in 1..=2 {
        shell.press(CTRL_C);
        wait_for("an interrupt", || (shell.shown().matches("i-n-t\r\n").count() >= presses).then_some(()));
    }
    shell.press(CTRL_BACKSLASH);
    shell.expect("code=131");
    assert_eq!(shell.shown().matches("i-n-t\r\n").count(), 2, "{}", shell.shown());
    // One that goes on, however often it is interrupted.
    std::fs::remove_file(&notes).unwrap();
    shell.press(&format!("{counts}; echo \"co\"de=$?\n"));
    noted(&notes);
    while !shell.shown().contains("code=137") {
        let counted = shell.shown().len();
        shell.press(CTRL_C);
        wait_for("an answer", || {
            let news = &shell.shown()[counted..];
            (news.contains("i-n-t\r\n") || news.contains("code=137")).then_some(())
        });
    }
}

#[test]
fn a_job_can_be_stopped_and_continued() {
    let (dir, serve) = serve("60s");
    let notes = dir.path().join("notes");
    let mut shell = shell(&serve);
    shell.press(&format!("{}\n", locked("", "exec sleep 1000", &notes)));
    let job = noted(&notes);
    shell.press(CTRL_Z);
    shell.expect("Stopped");
    wait_for("the stop", || is_stopped(job).then_some(()));
    shell.press("fg\n");
    wait_for("the job to go on", || (!is_stopped(job)).then_some(()));
    // What another process has stopped, Ctrl-C ends as well.
    signal(job, "STOP");
    wait_for("the stop", || is_stopped(job).then_some(()));
    shell.press(CTRL_C);
    wait_for("the job to end", || (!is_alive(job)).then_some(()));
    shell.press("echo \"co\"de=$?\n");
    shell.expect("code=130");
    // The terminal stays the shell's when the job is in the background, and what reads it in a pipe may do so.
    std::fs::remove_file(&notes).unwrap();
    shell.press(&format!("{} &\n", locked("", "exec sleep 1000", &notes)));
    let job = noted(&notes);
    shell.press("echo sti\"\"ll\nkill %1; wait\n");
    shell.expect("still");
    wait_for("the job to end", || (!is_alive(job)).then_some(()));
    std::fs::remove_file(&notes).unwrap();
    let reader = "sh -c 'read it < /dev/tty; echo got-$it; kill $(cat)'";
    shell.press(&format!("{} | {reader}\n", locked("", "echo $$; exec sleep 1000 > /dev/null", &notes)));
    noted(&notes);
    shell.press("typed\n");
    shell.expect("got-typed");
}

#[test]
fn without_a_shell_a_job_does_not_stop_and_ends_with_the_terminal() {
    let (dir, serve) = serve("60s");
    let notes = dir.path().join("notes");
    let start = |script: &str| {
        let script = format!("echo $$ > {}; {script}", notes.display());
        Pty::start(&serve.wombat(&["lock", "/ls/local/l", "--", "sh", "-c", &script]))
    };
    let mut terminal = start("while read it; do echo got-$it; done");
    noted(&notes);
    // Nobody could continue it.
    terminal.press(CTRL_Z);
    terminal.press("typed\n");
    terminal.expect("got-typed");
    terminal.press(CTRL_C);
    assert_eq!(terminal.end(), Some(130));
    std::fs::remove_file(&notes).unwrap();
    let mut terminal = start("exec sleep 1000");
    let job = noted(&notes);
    terminal.hang_up();
    assert_eq!(terminal.end(), Some(129));
    assert!(!is_alive(job));
}

#[test]
fn when_the_cell_is_gone_the_command_is_stopped_and_the_code_says_why() {
    let (dir, mut serve) = serve("2s");
    let notes = dir.path().join("notes");
    // All of them ignore SIGTERM: only SIGKILL is left.
    let mut holder = lock(&serve, &format!("trap '' TERM; {FAMILY}"), &notes);
    let family = all_noted(&notes, 5);
    serve.kill();
    assert_eq!(wait_for("the holder to give up", || holder.try_wait().unwrap()).code(), Some(7));
    assert_eq!(family.into_iter().find(|&pid| is_alive(pid)), None);
}

#[test]
fn a_cell_that_comes_back_in_time_costs_nothing() {
    let (dir, mut serve) = serve("12s");
    let notes = dir.path().join("notes");
    let script =
        "echo $$ > $1; until [ -e $1.go ]; do sleep 0.05; done; wombat sequencer check $WOMBAT_SEQUENCER";
    let mut holder = lock(&serve, script, &notes);
    noted(&notes);
    serve.kill();
    serve.restart();
    std::fs::write(dir.path().join("notes.go"), "").unwrap();
    assert!(end(&mut holder).success(), "the lock was kept over the restart");
}

#[test]
fn waiting_ends_when_it_said_and_trying_waits_not_at_all() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let mut holder = lock(&serve, "echo $$ > $1; sleep 1000", &notes);
    let job = noted(&notes);
    serve.fails(5, &["lock", "/ls/local/l", "--timeout", "50ms", "--", "true"]);
    serve.fails(5, &["lock", "/ls/local/l", "--timeout", "0s", "--", "true"]);
    serve.fails(5, &["lock", "/ls/local/l", "--shared", "--timeout", "0s", "--", "true"]);
    // An interrupted wait leaves nothing behind.
    let mut waiter =
        serve.wombat(&["lock", "/ls/local/l", "--", "true"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiter.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("held by"), "it says who holds the lock");
    signal(waiter.id(), "INT");
    assert_eq!(end(&mut waiter).code(), Some(130));
    signal(job, "KILL");
    end(&mut holder);
    wait_for("the lock to be free", || (serve.ok(&["locks", "--json"]) == "[]\n").then_some(()));
}

#[test]
fn without_a_command_it_holds_until_interrupted() {
    let (_dir, serve) = serve("12s");
    let mut holder =
        serve.wombat(&["lock", "/ls/local/l", "--shared"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let sequencer = lines.next().unwrap().unwrap();
    serve.ok(&["sequencer", "check", &sequencer]);
    serve.ok(&["lock", "/ls/local/l", "--shared", "--timeout", "0s", "--", "true"]);
    signal(holder.id(), "INT");
    assert!(end(&mut holder).success());
    serve.fails(4, &["sequencer", "check", &sequencer]);
}
