//! What goes wrong, how often, and how often it did.

use perennial::stats::random::Generator;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $words:literal $soft:literal $hard:literal;)*) => {
        /// Kinds of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// For the report.
            pub fn words(self) -> &'static str {
                match self { $(Fault::$name => $words,)* }
            }

            /// Chances in a thousand, each time it could happen: in lives that must end as if nothing had happened, and in wild ones.
            fn chances(self) -> [usize; 2] {
                match self { $(Fault::$name => [$soft, $hard],)* }
            }
        }
    };
}

faults! {
    /// The operator dies before a write is sent.
    CrashBefore "crash before a write" 8 8;
    /// The operator dies, its write is committed.
    CrashLost "crash with the answer lost" 8 8;
    /// The operator dies after the answer.
    CrashAfter "crash after a write" 8 8;
    /// The write is committed, and no answer comes.
    AnswerLost "answer lost" 10 10;
    /// The write is committed, and its answer takes up to 3 s: others write meanwhile, and its echo may come first.
    AnswerLate "answer late" 30 60;
    /// The API server is in trouble: nothing is committed.
    ServerError "refused for now (429, 500, 503)" 10 10;
    /// Somebody changes an annotation just before the operator's write.
    Raced "raced by another writer" 10 10;
    /// A watch brings nothing for up to 40 s.
    Lag "stale cache" 6 12;
    /// A watch breaks: its events are lost, and it lists again within a minute.
    Lost "events lost until a relist" 4 8;
    /// A watch brings an event twice.
    Duplicate "event delivered twice" 10 10;
    /// A gateway hears late of a change of routing.
    GatewayLate "gateway late" 20 60;
    /// A gateway pod is replaced.
    GatewayReplaced "gateway pod replaced" 0 120;
    /// A gateway can't be asked.
    GatewayUnreachable "measurements missing" 0 15;
    /// All pods of a server are gone for a while.
    PodsFail "server pods failing" 0 250;
    /// A Job's pod is evicted.
    Evicted "pod evicted" 0 60;
    /// A Job's pod takes ten minutes.
    JobLate "evaluation or training late" 0 60;
    /// A Job's pod can't be asked, nor says anything when it ends.
    ReportLost "report lost" 0 60;
    /// The operator's clock is put forward or back.
    Clock "clock step" 0 120;
    /// Somebody deletes or edits a child of a release.
    ChildTouched "child deleted or edited by hand" 0 150;
    /// A release's status is lost.
    StatusLost "status lost" 0 25;
}

/// How bad it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong.
    Calm,
    /// Only what must not change how things end.
    Soft,
    /// Everything.
    Wild,
}

/// When somebody edits an object that the operator writes the status of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// Just before each write.
    Before,
    /// Just after each write, before its echo.
    After,
}

/// Decides about faults, from its own stream of random numbers.
pub struct Faults {
    random: Generator,
    pub weather: Weather,
    pub counts: Vec<u64>,
    /// The event with this number is lost, and what follows it on its watch until that lists again a minute later.
    pub loses: Option<u64>,
    /// Somebody edits whenever the operator writes.
    pub race: Option<Race>,
    /// Every kind of status that is written is kept.
    pub sampled: bool,
}

impl Faults {
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            random: Generator::new(seed ^ 0xfa17),
            weather,
            counts: vec![0; Fault::ALL.len()],
            loses: None,
            race: None,
            sampled: false,
        }
    }

    /// Whether this happens now.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let [soft, wild] = fault.chances();
        let chances = match self.weather {
            Weather::Calm => return false,
            Weather::Soft => soft,
            Weather::Wild => wild,
        };
        let strikes = self.random.below(1000) < chances;
        if strikes {
            self.counts[fault as usize] += 1;
        }
        strikes
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }
}
