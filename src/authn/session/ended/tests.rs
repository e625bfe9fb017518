use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::authn::oidc::Party;
use crate::authn::session::SessionId;
use crate::clock::{Clock, SystemClock};

const ISSUER: &str = "https://id.example";
const DAY: Duration = Duration::from_secs(86_400);
/// Told at once, of sessions that live for a day.
const NOW_FOR_A_DAY: (UnixTime, Duration) = (UnixTime(u64::MAX), DAY);

/// Seconds that only a test moves, and for how many its machine slept besides.
#[derive(Debug, Default)]
struct Stopped(AtomicU64, AtomicU64);

impl Clock for Stopped {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime() + Duration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

struct Scene {
    ended: EndedSessions,
    clock: Arc<Stopped>,
}

impl Scene {
    fn new(capacity: usize, unproven: usize) -> Self {
        let clock = Arc::new(Stopped(AtomicU64::new(1_700_000_000), AtomicU64::default()));
        Self { ended: EndedSessions::with_capacity(Arc::<Stopped>::clone(&clock), capacity, unproven), clock }
    }

    fn pass(&self, span: Duration) {
        self.clock.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }

    /// With every clock but the one that goes on: nobody has set the others yet.
    fn sleep(&self, span: Duration) {
        self.clock.1.fetch_add(span.as_secs(), Ordering::SeqCst);
    }

    fn sign_in(&self, sub: &str, sid: &str) -> Marks {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Marks {
            id: SessionId(id),
            provider_session: (!sid.is_empty()).then(|| session(sid)),
            subject: subject(sub),
            begun: self.ended.next_turn(),
        }
    }

    /// As several replicas put it in order.
    fn sign_in_now(&self, sub: &str, sid: &str) -> Marks {
        Marks { begun: self.ended.beginning(), ..self.sign_in(sub, sid) }
    }

    fn told(&self, sid: &str, sub: Option<&str>) {
        said(self.ended.end_named(session(sid), sub.map(subject), Told::ByProvider, NOW_FOR_A_DAY));
    }
}

/// As whoever ended it waits.
fn said(written: Written) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(written.wait());
}

fn party() -> Party {
    Party::of(ISSUER, "app")
}

fn session(sid: &str) -> NameDigest {
    NameDigest::of_session(party(), ISSUER, sid)
}

fn subject(sub: &str) -> NameDigest {
    NameDigest::of_subject(party(), ISSUER, sub)
}

#[test]
fn an_ended_session_is_remembered_until_its_cookie_expires() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (ada, bob) = (scene.sign_in("ada", ""), scene.sign_in("bob", ""));
    assert!(!scene.ended.contains(&ada, party()));
    said(scene.ended.end(&ada, scene.clock.now().after(DAY)));
    assert!(scene.ended.contains(&ada, party()) && !scene.ended.contains(&bob, party()));
    scene.pass(DAY);
    // Each one that ends looks through another shard.
    for _ in 0..1024 {
        let other = scene.sign_in("eve", "");
        said(scene.ended.end(&other, scene.clock.now()));
    }
    assert!(!scene.ended.contains(&ada, party()), "what has expired is forgotten");
}

#[test]
fn a_subject_is_signed_out_everywhere_and_may_sign_in_again_in_the_same_second() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (first, second, bob) = (scene.sign_in("ada", "s1"), scene.sign_in("ada", "s2"), scene.sign_in("bob", "s3"));
    for _ in 0..3 {
        said(scene.ended.end_subject(subject("ada"), NOW_FOR_A_DAY));
        assert!(
            scene.ended.contains(&first, party())
                && scene.ended.contains(&second, party())
                && !scene.ended.contains(&bob, party())
        );
        let again = scene.sign_in("ada", "s1");
        assert!(!scene.ended.contains(&again, party()));
        said(scene.ended.end_subject(subject("ada"), NOW_FOR_A_DAY));
        assert!(scene.ended.contains(&again, party()));
    }
    let other = NameDigest::of_subject(Party::of(ISSUER, "another"), ISSUER, "bob");
    said(scene.ended.end_subject(other, NOW_FOR_A_DAY));
    assert!(!scene.ended.contains(&bob, party()), "another client's subject is another one");
    assert_ne!(session("x"), subject("x"), "a subject is no session");
}

#[test]
fn a_session_ends_by_its_name_and_only_whose_it_is() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (ada, other) = (scene.sign_in("ada", "s1"), scene.sign_in("ada", "s2"));
    scene.told("s1", Some("bob"));
    assert!(!scene.ended.contains(&ada, party()));
    scene.told("s1", Some("ada"));
    assert!(scene.ended.contains(&ada, party()) && !scene.ended.contains(&other, party()));
    scene.told("s2", None);
    assert!(scene.ended.contains(&other, party()));
    // The provider's session went on, and the person came back with it.
    let again = scene.sign_in("ada", "s2");
    assert!(!scene.ended.contains(&again, party()));
    scene.told("s2", Some("bob"));
    assert!(scene.ended.contains(&again, party()), "anyone's stays anyone's");
    for sub in ["a", "b", "c", "d", "e", "f"] {
        scene.told("s4", Some(sub));
    }
    scene.told("s4", Some("g"));
    assert!(scene.ended.names.any(&session("s4").0, |named| named.subjects.is_empty()), "too many are anyone's");
}

#[test]
fn what_is_told_late_ends_what_began_until_then_and_nothing_newer() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let before = scene.sign_in("ada", "s1");
    let begun_by = UnixTime(scene.clock.now().0 + 31);
    scene.pass(Duration::from_secs(30));
    // Its clock may be behind: this one may have begun before it was said.
    let within_the_skew = scene.sign_in("ada", "s1");
    scene.pass(Duration::from_secs(2));
    let after = scene.sign_in("ada", "s1");
    scene.pass(Duration::from_secs(200));
    for by_name in [true, false] {
        match by_name {
            true => said(scene.ended.end_named(session("s1"), None, Told::ByProvider, (begun_by, DAY))),
            false => said(scene.ended.end_subject(subject("ada"), (begun_by, DAY))),
        }
        assert!(
            scene.ended.contains(&before, party())
                && scene.ended.contains(&within_the_skew, party())
                && !scene.ended.contains(&after, party())
        );
    }
    // Told at once, on a machine whose clock was ahead for a while.
    scene.clock.0.fetch_sub(3600, Ordering::SeqCst);
    let ahead = scene.sign_in("ada", "s1");
    said(scene.ended.end_subject(subject("ada"), (scene.clock.now().after(Duration::from_secs(31)), DAY)));
    assert!(scene.ended.contains(&ahead, party()) && scene.ended.contains(&after, party()));
}

#[test]
fn what_is_too_much_becomes_one_moment_and_nothing_ended_comes_back() {
    let scene = Scene::new(64, 8);
    let mut dead = Vec::new();
    for number in 0..400 {
        let marks = scene.sign_in(&format!("u{number}"), &format!("s{number}"));
        match number % 3 {
            0 => said(scene.ended.end(&marks, scene.clock.now().after(DAY))),
            1 => said(scene.ended.end_subject(marks.subject, NOW_FOR_A_DAY)),
            _ => scene.told(&format!("s{number}"), None),
        }
        dead.push(marks);
        scene.pass(Duration::from_secs(60));
        assert!(scene.ended.len() <= 64, "{}", scene.ended.len());
    }
    assert!(dead.iter().all(|marks| scene.ended.contains(marks, party())));
    assert!(!scene.ended.contains(&scene.sign_in("new", "new"), party()));
}

#[test]
fn what_nobody_proved_pushes_out_the_oldest_of_its_kind_and_nothing_else() {
    let scene = Scene::new(1000, 16);
    let anyone = |sid: &str| said(scene.ended.end_named(session(sid), None, Told::ByAnyone, NOW_FOR_A_DAY));
    let (first, proven) = (scene.sign_in("ada", "first"), scene.sign_in("bob", "proven"));
    anyone("first");
    scene.told("proven", None);
    let made_up = |count: usize| (0..count).for_each(|number| anyone(&format!("made up {number}")));
    made_up(15);
    assert!(scene.ended.contains(&first, party()), "there is room for it");
    for number in 0..200 {
        let latest = scene.sign_in("eve", &format!("s{number}"));
        anyone(&format!("s{number}"));
        assert!(scene.ended.contains(&latest, party()), "the news counts, however full it is");
        assert!(scene.ended.names.len() <= 17, "{}", scene.ended.names.len());
    }
    assert!(scene.ended.contains(&proven, party()) && !scene.ended.contains(&first, party()));
    scene.pass(DAY + Duration::from_secs(61));
    anyone("one more");
    assert!(scene.ended.names.len() <= 17);
}

#[test]
fn what_is_made_up_pushes_out_nothing_that_names_a_session_of_a_sign_in_here() {
    let scene = Scene::new(1000, 16);
    let anyone = |sid: &str| said(scene.ended.end_named(session(sid), None, Told::ByAnyone, NOW_FOR_A_DAY));
    let (ada, of_a_replica) = (scene.sign_in("ada", "real"), scene.sign_in("bob", "elsewhere"));
    scene.ended.began(session("real"));
    anyone("real");
    anyone("elsewhere");
    (0..200).for_each(|number| anyone(&format!("made up {number}")));
    assert!(scene.ended.contains(&ada, party()), "its name was no invention");
    assert!(!scene.ended.contains(&of_a_replica, party()), "the most that can be known of another's");
    assert!(scene.ended.names.len() <= 18, "{}", scene.ended.names.len());
}

#[test]
fn what_is_told_again_is_new_again() {
    let scene = Scene::new(1000, 16);
    let anyone = |sid: &str| said(scene.ended.end_named(session(sid), None, Told::ByAnyone, NOW_FOR_A_DAY));
    let ada = scene.sign_in("ada", "kept");
    for number in 0..100 {
        anyone("kept");
        anyone(&format!("s{number}"));
        assert!(scene.ended.contains(&ada, party()), "{number}");
    }
}

#[test]
fn issuers_with_the_same_names_are_told_apart() {
    let of =
        |issuer: &str| (NameDigest::of_session(party(), issuer, "s"), NameDigest::of_subject(party(), issuer, "s"));
    assert_ne!(of("https://id.example/one").0, of("https://id.example/two").0);
    assert_ne!(of("https://id.example/one").1, of("https://id.example/two").1);
    assert_ne!(of("a").0, of("a").1);
}

#[test]
fn turns_never_repeat_and_never_go_back_with_the_clock() {
    let scene = Scene::new(64, 8);
    let first = scene.ended.next_turn();
    let second = scene.ended.next_turn();
    scene.clock.0.fetch_sub(500, Ordering::SeqCst);
    let third = scene.ended.next_turn();
    assert!(first < second && second < third);
    scene.pass(DAY);
    assert_eq!(scene.ended.next_turn(), Turn(scene.clock.now().0 * 1_000_000));
}

#[test]
fn every_session_of_a_provider_ends_and_none_of_another() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let other = Party::of("https://other.example", "app");
    let ada = scene.sign_in("ada", "");
    said(scene.ended.end_party(party(), DAY));
    assert!(scene.ended.contains(&ada, party()) && !scene.ended.contains(&ada, other));
    assert!(!scene.ended.contains(&scene.sign_in("ada", ""), party()), "whoever signs in again is signed in");
    scene.pass(DAY + SKEW);
    said(scene.ended.end_subject(subject("bob"), NOW_FOR_A_DAY));
    scene.ended.drop_entries(None, |entry| entry.until > scene.clock.now());
    assert!(!scene.ended.contains(&ada, party()), "what has expired is forgotten");
}

#[test]
fn every_session_ends_that_began_before_this_moment() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let ada = scene.sign_in("ada", "");
    said(scene.ended.end_all());
    assert!(scene.ended.contains(&ada, party()));
    assert!(!scene.ended.contains(&scene.sign_in("ada", ""), party()));
}

#[test]
fn what_an_older_release_wrote_is_read_and_its_kinds_keep_their_numbers() {
    let entry = Entry { at: Turn(7), until: UnixTime(9) };
    for (number, statement) in [
        Statement::Id([1; 16], entry),
        Statement::Subject([1; 16], entry),
        Statement::Name([1; 16], Named { entry, subjects: Vec::new(), told: Told::ByProvider }),
        Statement::Horizon(Turn(7)),
        Statement::Party([1; 16], entry),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = statement.encode();
        assert_eq!(usize::from(bytes[0]), number);
        assert_eq!(Statement::decode(&bytes), Some(statement));
    }
}

/// A file as this release writes it. It is read for ever: an ended session that a new release forgot would be alive again.
#[test]
fn a_file_in_format_1_is_read_for_ever() {
    let file: Vec<u8> =
        (0..FILE_1.len() / 2).map(|at| u8::from_str_radix(&FILE_1[2 * at..2 * at + 2], 16).unwrap()).collect();
    let content = frame::read(&file);
    assert!(!content.damaged);
    let entry = Entry { at: Turn(1700000001000002), until: UnixTime(4102444800) };
    let named = |subjects, told| Named { entry, subjects, told };
    assert_eq!(
        content.statements,
        [
            Statement::Id([1; 16], entry),
            Statement::Subject([2; 16], entry),
            Statement::Name([3; 16], named(vec![NameDigest([4; 16])], Told::ByAnyone)),
            Statement::Name([6; 16], named(Vec::new(), Told::ByProvider)),
            Statement::Horizon(Turn(1700000000999997)),
            Statement::Party([5; 16], entry),
        ]
    );
    let mut written = frame::HEADER.to_vec();
    content.statements.iter().for_each(|statement| frame::write(&mut written, statement));
    assert_eq!(written, file, "and this release writes it so");
    let clock = Arc::new(Stopped(AtomicU64::new(1_700_000_000), AtomicU64::default()));
    let (kept, is_damaged) = EndedSessions::kept_of(&file, Arc::<Stopped>::clone(&clock));
    assert_eq!((kept.len(), is_damaged), (file.len(), false));
    let (kept, _) = EndedSessions::kept_of(&kept, clock);
    assert_eq!(kept.len(), file.len());
}

const FILE_1: &str = "766573746962756c652d656e642d310a1e00cd41e53bc15202c90001010101010101010101010101010101c284b6c1c1c4820380ae99a4\
     0f1e009c161054e48565800102020202020202020202020202020202c284b6c1c1c4820380ae99a40f30002caf2cef30569ae502030303\
     03030303030303030303030303c284b6c1c1c4820380ae99a40f01040404040404040404040404040404040120005ad96023a1c10b4d02\
     06060606060606060606060606060606c284b6c1c1c4820380ae99a40f0000090063ffbe9ea60390f903bd84b6c1c1c482031e00e19474\
     4cffa872120405050505050505050505050505050505c284b6c1c1c4820380ae99a40f";

mod kept {
    use std::io::Write as _;
    use std::path::Path;

    use tempfile::tempdir;

    use super::*;

    fn open(folder: &Path, clock: &Arc<Stopped>) -> Arc<EndedSessions> {
        EndedSessions::kept_in(folder, Arc::<Stopped>::clone(clock)).unwrap()
    }

    /// Ends one of each kind, and gives them with one that has not ended.
    fn some(ended: &EndedSessions, clock: &Stopped) -> ([Marks; 3], Marks) {
        let begin = |name: u8| Marks { begun: ended.next_turn(), ..Marks::for_test(name) };
        let dead = [begin(10), begin(20), begin(30)];
        said(ended.end(&dead[0], clock.now().after(DAY)));
        said(ended.end_subject(dead[1].subject, NOW_FOR_A_DAY));
        let sid = dead[2].provider_session.unwrap();
        said(ended.end_named(sid, Some(dead[2].subject), Told::ByProvider, NOW_FOR_A_DAY));
        (dead, begin(40))
    }

    fn clock() -> Arc<Stopped> {
        Arc::new(Stopped(AtomicU64::new(1_700_000_000), AtomicU64::default()))
    }

    #[test]
    fn a_restart_forgets_nothing_and_ends_nothing_more() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let path = folder.path().join("made/by/us");
        let first = open(&path, &clock);
        let (dead, live) = some(&first, &clock);
        drop(first);
        for _ in 0..2 {
            let next = open(&path, &clock);
            assert!(dead.iter().all(|marks| next.contains(marks, party())));
            assert!(!next.contains(&live, party()));
            let again = Marks { begun: next.next_turn(), ..dead[1] };
            assert!(
                !next.contains(&Marks { id: SessionId([9; 16]), ..again }, party()),
                "whoever signs in again is signed in"
            );
        }
        clock.0.fetch_add(DAY.as_secs() + 61, Ordering::SeqCst);
        assert_eq!(open(&path, &clock).len(), 0, "what has expired is not read");
        assert_eq!(std::fs::metadata(path.join("ended-sessions-0.log")).unwrap().len(), 16, "nor written again");
    }

    #[test]
    fn a_restart_forgets_neither_a_provider_nor_that_everybody_s_sessions_ended() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let other = Party::of("https://other.example", "app");
        let first = open(folder.path(), &clock);
        let ada = Marks { begun: first.next_turn(), ..Marks::for_test(10) };
        said(first.end_party(party(), DAY));
        drop(first);
        let next = open(folder.path(), &clock);
        assert!(next.contains(&ada, party()) && !next.contains(&ada, other));
        said(next.end_all());
        drop(next);
        // From the journal, and from the snapshot that the start made of it.
        for _ in 0..2 {
            assert!(open(folder.path(), &clock).contains(&ada, other));
        }
    }

    #[test]
    fn processes_share_a_folder_and_the_next_one_knows_what_each_was_told() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let one = open(folder.path(), &clock);
        let other = open(folder.path(), &clock);
        let (dead, live) = some(&one, &clock);
        let bob = Marks { begun: other.next_turn(), ..Marks::for_test(50) };
        said(other.end(&bob, clock.now().after(DAY)));
        let third = open(folder.path(), &clock);
        assert!(
            dead.iter().chain([&bob]).all(|marks| third.contains(marks, party())) && !third.contains(&live, party())
        );
        drop((one, other, third));
        let last = open(folder.path(), &clock);
        assert!(dead.iter().chain([&bob]).all(|marks| last.contains(marks, party())));
        let logs = std::fs::read_dir(folder.path()).unwrap();
        let logs = logs.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "log"));
        assert_eq!(logs.count(), 1, "what the others said is said in one");
    }

    /// The file as a process left it that was killed.
    fn left_behind(clock: &Arc<Stopped>) -> (Vec<u8>, [Marks; 3], Marks) {
        let folder = tempdir().unwrap();
        let ended = open(folder.path(), clock);
        let (dead, live) = some(&ended, clock);
        let bytes = std::fs::read(folder.path().join("ended-sessions-0.log")).unwrap();
        (bytes, dead, live)
    }

    #[test]
    fn a_write_that_was_cut_off_costs_nothing_before_it() {
        let clock = clock();
        let (bytes, dead, live) = left_behind(&clock);
        let whole = frame::read(&bytes).statements.len();
        assert_eq!(whole, 3);
        for length in frame::HEADER.len()..bytes.len() {
            for zeros in [0, 1, 5000] {
                let mut cut = bytes[..length].to_vec();
                cut.resize(length + zeros, 0);
                let content = frame::read(&cut);
                assert!(!content.damaged, "{length} {zeros}");
                // A last byte that was zero itself is made good by a tail of zeros.
                let is_whole = cut.starts_with(&bytes);
                assert_eq!(content.statements.len() == whole, is_whole, "{length} {zeros}");
            }
        }
        let folder = tempdir().unwrap();
        std::fs::write(folder.path().join("ended-sessions-0.log"), &bytes[..bytes.len() - 1]).unwrap();
        let ended = open(folder.path(), &clock);
        assert!(
            ended.contains(&dead[0], party()) && ended.contains(&dead[1], party()) && !ended.contains(&live, party())
        );
    }

    #[test]
    fn damage_loses_nothing_that_can_be_read_and_opens_no_door() {
        let clock = clock();
        let (bytes, dead, live) = left_behind(&clock);
        let folder = tempdir().unwrap();
        let path = folder.path().join("ended-sessions-0.log");
        let end_of_second = bytes.len() - 10;
        for at in 0..end_of_second {
            let mut broken = bytes.clone();
            broken[at] ^= 0x40;
            let content = frame::read(&broken);
            assert!(content.damaged || at >= 16 && content.statements.len() >= 2, "{at}");
        }
        let mut broken = bytes;
        broken[40] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        let ended = open(folder.path(), &clock);
        assert!(dead.iter().all(|marks| ended.contains(marks, party())));
        assert!(ended.contains(&live, party()), "nobody knows whether it had ended");
        assert!(ended.len() >= 2, "what can be read is there");
        let new = Marks { begun: ended.next_turn(), ..Marks::for_test(60) };
        assert!(!ended.contains(&new, party()), "whoever signs in again is signed in");
        assert_eq!(std::fs::read(folder.path().join("ended-sessions-0.damaged")).unwrap(), broken);
        drop(ended);
        let next = open(folder.path(), &clock);
        assert!(next.contains(&live, party()) && !next.contains(&new, party()), "that is remembered too");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_by_its_name() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let open = |path: &Path| EndedSessions::kept_in(path, Arc::<Stopped>::clone(&clock)).unwrap_err();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(open(&file).to_string().contains("file"), "{}", open(&file));
        std::fs::create_dir(folder.path().join("ended-sessions-0.log")).unwrap();
        assert!(open(folder.path()).to_string().contains("ended-sessions-0.log"));
    }

    #[test]
    fn the_file_is_written_anew_when_most_of_it_has_expired() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let ended = open(folder.path(), &clock);
        let path = folder.path().join("ended-sessions-0.log");
        let (dead, _) = some(&ended, &clock);
        let mut largest = 0;
        for number in 0..60_000_u32 {
            let mut marks = Marks::for_test(70);
            marks.id.0[..4].copy_from_slice(&number.to_le_bytes());
            let written = ended.end(&marks, clock.now().after(Duration::from_secs(1)));
            if number % 1000 == 0 {
                said(written);
                clock.0.fetch_add(2, Ordering::SeqCst);
                largest = largest.max(std::fs::metadata(&path).unwrap().len());
            }
        }
        while std::fs::metadata(&path).unwrap().len() > 1 << 20 {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(dead.iter().all(|marks| ended.contains(marks, party())));
        drop(ended);
        assert!(dead.iter().all(|marks| open(folder.path(), &clock).contains(marks, party())), "{largest}");
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let ended = open(folder.path(), &clock);
        drop(ended);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = written_to(full, folder.path(), &clock);
        let (dead, _) = some(&ended, &clock);
        until_written(folder.path(), &clock, &dead);
        assert!(ended.unwritten() > 0);
        drop(ended);
        assert!(dead.iter().all(|marks| open(folder.path(), &clock).contains(marks, party())));
    }

    /// With another file in the place of the one in `folder`.
    fn written_to(file: std::fs::File, folder: &Path, clock: &Arc<Stopped>) -> Arc<EndedSessions> {
        let ended = EndedSessions::new(Arc::<Stopped>::clone(clock));
        let (journal, mut keeper) = journal::find(folder).unwrap().open(&ended.snapshot()).unwrap();
        keeper.file = file;
        ended.written_by((journal, keeper)).unwrap()
    }

    fn until_written(folder: &Path, clock: &Arc<Stopped>, dead: &[Marks]) {
        let path = folder.join("ended-sessions-0.log");
        let is_written = || {
            let ended = EndedSessions::new(Arc::<Stopped>::clone(clock));
            ended.load(frame::read(&std::fs::read(&path).unwrap()).statements.iter());
            dead.iter().all(|marks| ended.contains(marks, party()))
        };
        while !is_written() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_folder_that_hangs_holds_nobody_up_and_what_it_missed_is_written_when_it_goes_on() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // As much as it takes: the next write waits for a reader.
        writer.write_all(&[0; 65_536]).unwrap();
        let hanging = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let ended = written_to(hanging, folder.path(), &clock);
        let begun = std::time::Instant::now();
        let ended_one = |number: u32| {
            let mut marks = Marks { begun: ended.next_turn(), ..Marks::for_test(80) };
            marks.id.0[..4].copy_from_slice(&number.to_le_bytes());
            let written = ended.end(&marks, clock.now().after(DAY));
            assert!(ended.contains(&marks, party()), "it counts at once");
            (marks, written)
        };
        let mut dead = Vec::new();
        for number in 0..100 {
            let (marks, written) = ended_one(number);
            said(written);
            dead.push(marks);
        }
        assert!((900..4000).contains(&begun.elapsed().as_millis()), "only the first waits: {:?}", begun.elapsed());
        assert_eq!(ended.unwritten(), 100);
        // More than there is room for.
        for number in 100..30_000 {
            let (marks, written) = ended_one(number);
            drop(written);
            dead.push(marks);
        }
        assert!(ended.writing().journal.as_ref().unwrap().spool.is_full());
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        until_written(folder.path(), &clock, &dead);
        let (marks, written) = ended_one(30_000);
        dead.push(marks);
        said(written);
        drop(ended);
        let next = open(folder.path(), &clock);
        assert!(dead.iter().all(|marks| next.contains(marks, party())));
    }

    #[test]
    fn a_hundred_thousand_are_read_in_a_moment() {
        let (folder, clock) = (tempdir().unwrap(), clock());
        let mut bytes = frame::HEADER.to_vec();
        for number in 0..100_000_u32 {
            let mut key = [0; 16];
            aws_lc_rs::rand::fill(&mut key).unwrap();
            let entry = Entry { at: Turn(u64::from(number)), until: clock.now().after(DAY) };
            frame::write(&mut bytes, &Statement::Id(key, entry));
        }
        let mut file = std::fs::File::create(folder.path().join("ended-sessions-0.log")).unwrap();
        file.write_all(&bytes).unwrap();
        let begun = std::time::Instant::now();
        let ended = open(folder.path(), &clock);
        let took = begun.elapsed();
        assert_eq!(ended.len(), 100_000);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }

    mod laws {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn garbage_is_read_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
                let content = frame::read(&[&frame::HEADER[..], &bytes].concat());
                prop_assert!(content.damaged || bytes.len() < 300 || bytes.iter().all(|byte| *byte == 0));
                prop_assert!(frame::read(&bytes).damaged);
            }

            #[test]
            fn what_is_said_is_read(keys in proptest::collection::vec(any::<([u8; 16], u64, u64, bool)>(), 0..40)) {
                let statements: Vec<_> = keys.iter().map(|(key, at, until, is_name)| {
                    let entry = Entry { at: Turn(*at), until: UnixTime(*until) };
                    let subjects = vec![NameDigest(*key); usize::from(key[0] % 5)];
                    match is_name {
                        true => Statement::Name(*key, Named { entry, subjects, told: Told::ByAnyone }),
                        false => Statement::Id(*key, entry),
                    }
                }).collect();
                let mut bytes = frame::HEADER.to_vec();
                statements.iter().for_each(|statement| frame::write(&mut bytes, statement));
                let content = frame::read(&bytes);
                prop_assert!(!content.damaged);
                prop_assert_eq!(content.statements, statements);
            }
        }
    }
}

/// Two replicas whose clocks are apart, and what they know of the store's.
fn apart(seconds: u64, is_known: bool) -> [Scene; 2] {
    let scenes = [Scene::new(CAPACITY, UNPROVEN), Scene::new(CAPACITY, UNPROVEN)];
    scenes[1].pass(Duration::from_secs(seconds));
    for scene in &scenes {
        scene.ended.timeline.share();
        if is_known {
            let now = SystemClock.uptime();
            scene.ended.timeline.heard(1_700_000_000_000_000, now, now);
        }
    }
    scenes
}

#[test]
fn what_one_replica_ends_began_before_that_at_any_other_whatever_its_clock_says() {
    for (ahead, is_known) in [(0, true), (55, true), (0, false), (55, false)] {
        let [behind, ahead_of_it] = apart(ahead, is_known);
        for (teller, other) in [(&behind, &ahead_of_it), (&ahead_of_it, &behind)] {
            let sign_in = || Marks { begun: other.ended.beginning(), ..other.sign_in("ada", "s1") };
            let (by_sub, by_sid) = (sign_in(), Marks { subject: subject("bob"), ..sign_in() });
            said(teller.ended.end_subject(subject("ada"), NOW_FOR_A_DAY));
            teller.told("s1", Some("bob"));
            for statement in frame::read(&teller.ended.snapshot()).statements {
                other.ended.hear(statement);
            }
            for scene in [teller, other] {
                for marks in [&by_sub, &by_sid] {
                    assert!(scene.ended.contains(marks, party()), "{ahead} {is_known}");
                }
            }
            if is_known {
                std::thread::sleep(Duration::from_millis(20));
                let again = sign_in();
                assert!(!teller.ended.contains(&again, party()) && !other.ended.contains(&again, party()));
            }
        }
    }
}

/// A session elsewhere, and its end, both while the clock of this replica stood still.
fn begun_and_ended(at: u64) -> (Marks, Statement) {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let marks = Marks { begun: Turn(at - 60_000_000), ..scene.sign_in("ada", "s1") };
    let entry = Entry { at: Turn(at), until: UnixTime(u64::MAX) };
    (marks, Statement::Name(session("s1").0, Named { entry, subjects: Vec::new(), told: Told::ByProvider }))
}

#[test]
fn what_was_ended_while_a_machine_slept_or_before_its_store_s_clock_was_set_back_ends_there_too() {
    const HOUR: u64 = 3_600;
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let time = scene.clock.now().0 * 1_000_000;
    scene.ended.timeline.share();
    let now = SystemClock.uptime();
    scene.ended.timeline.heard(time, now, now);
    // The machine's clock went on, the one that nobody sets did not.
    scene.pass(Duration::from_secs(HOUR));
    let (marks, statement) = begun_and_ended(time + HOUR * 1_000_000);
    scene.ended.hear(statement);
    assert!(scene.ended.contains(&marks, party()), "what began and ended meanwhile");
    // The store's is an hour behind from now on, so that later sessions bear earlier times.
    let (later, statement) = begun_and_ended(time + HOUR * 1_000_000 + 5_000_000);
    scene.ended.timeline.heard(time - HOUR * 1_000_000, now, now);
    scene.ended.hear(statement);
    assert!(scene.ended.contains(&later, party()), "what was said before it was set back");
}

#[test]
fn what_is_ended_on_waking_ends_what_others_began_while_the_machine_slept() {
    const HOUR: Duration = Duration::from_secs(3_600);
    type End = fn(&Scene);
    let ends: [(&str, End); 4] = [
        ("by its name", |here| here.told("s1", Some("ada"))),
        ("by its subject", |here| said(here.ended.end_subject(subject("ada"), NOW_FOR_A_DAY))),
        ("by its provider", |here| said(here.ended.end_party(party(), DAY))),
        ("with all others", |here| said(here.ended.end_all())),
    ];
    for (how, end) in ends {
        let [here, other] = apart(0, true);
        let before = other.sign_in_now("ada", "s1");
        here.sleep(HOUR);
        other.sleep(HOUR);
        let meanwhile = other.sign_in_now("ada", "s1");
        // Before the store has told it what time it is.
        end(&here);
        for statement in frame::read(&here.ended.snapshot()).statements {
            other.ended.hear(statement);
        }
        for scene in [&here, &other] {
            assert!(scene.ended.contains(&before, party()) && scene.ended.contains(&meanwhile, party()), "{how}");
        }
        // What is known may be a little off after such a time, and not by more.
        other.sleep(Duration::from_secs(10));
        let again = other.sign_in_now("ada", "s1");
        assert!(!here.ended.contains(&again, party()) && !other.ended.contains(&again, party()), "{how}");
    }
}

#[test]
fn a_clock_that_is_far_ahead_of_ours_and_of_the_store_s_ends_nothing_that_begins_here_later() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let time = scene.clock.now().0 * 1_000_000;
    scene.ended.timeline.share();
    let now = SystemClock.uptime();
    scene.ended.timeline.heard(time, now, now);
    let (_, statement) = begun_and_ended(time + 86_400_000_000);
    scene.ended.hear(statement);
    let tomorrow = Marks { begun: Turn(time + 130_000_000), ..scene.sign_in("ada", "s1") };
    assert!(!scene.ended.contains(&tomorrow, party()));
}

#[tokio::test]
async fn a_replica_that_stood_still_with_all_its_clocks_asks_the_store_before_it_cuts_short_what_others_ended() {
    let store = Store::memory(runtime::Handle::current());
    let clock = Arc::new(Stopped(AtomicU64::new(1_700_000_000), AtomicU64::default()));
    let ended = Arc::new(EndedSessions::with_capacity(clock, CAPACITY, UNPROVEN));
    ended.share(store.clone(), DAY, &runtime::Handle::current());
    ended.started().await;
    assert_eq!(ended.is_current(DAY), Some(true));
    // As if an hour had passed that neither clock saw: the store is not asked again for a while.
    let time = store.time().await.unwrap();
    let now = SystemClock.uptime();
    ended.timeline.heard(time - 3_600_000_000, now, now);
    let (marks, statement) = begun_and_ended(time);
    let mut message = frame::HEADER.to_vec();
    frame::write(&mut message, &statement);
    store.publish(crate::store::Topic::Ended, message, DAY).await.unwrap();
    let heard = async {
        while !ended.names.any(&session("s1").0, |_| true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap();
    assert!(ended.contains(&marks, party()));
}

#[tokio::test]
async fn a_replica_whose_machine_slept_for_long_knows_what_others_ended_only_when_it_has_heard_them_again() {
    let store = Store::memory(runtime::Handle::current());
    let clock = Arc::new(Stopped(AtomicU64::new(1_700_000_000), AtomicU64::default()));
    let ended = Arc::new(EndedSessions::with_capacity(Arc::<Stopped>::clone(&clock), CAPACITY, UNPROVEN));
    ended.share(store.clone(), DAY, &runtime::Handle::current());
    ended.started().await;
    assert_eq!(ended.is_current(SKEW), Some(true));
    // As if for a minute longer than it may have heard nothing.
    clock.1.fetch_add(2 * SKEW.as_secs(), Ordering::SeqCst);
    assert_eq!(ended.is_current(SKEW), Some(false), "what was ended meanwhile is not known");
    assert_eq!(ended.is_current(DAY), Some(true), "as the setting says");
    let heard = async {
        while ended.is_current(SKEW) != Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap();
}
