//! One file per loss: paper, formula, gradient. This file is the list of them.
//!
//! Nothing here knows dtypes, devices, vocabularies or the rest of the crate. To add a loss: write
//! its file with [`objective!`](crate::objective), name it in the list below, and the tests, the table
//! `docs/objectives.md` and the kernels, which iterate over [`objectives`], have it.

mod any;
mod columns;
mod elementary;
mod objective;
mod parameter;
mod ranking;
mod rankings;
mod reduction;
pub mod scalar;
mod units;

pub use any::{AnyEvaluation, AnyObjective};
pub(crate) use columns::{Columns, Evaluated};
#[doc(hidden)]
pub use objective::evaluate_each;
pub use objective::{Clipped, Evaluation, Inputs, Objective, Source};
pub use parameter::{
    AVERAGE, BELOW_HALF, BOUNDED, CHOICE, Description, Domain, FINITE, INSIDE_HALF, INSIDE_UNIT,
    NOT_NEGATIVE, Named, NamedError, ORDER, POSITIVE, PROBABILITY, Parameter, ParameterDescription,
    ParameterError, ParameterKind, SWITCH, UP_TO_HALF,
};
pub use ranking::{Constants, Ranking, RankingKind, RankingValue};
pub use rankings::{ListedRanking, ranking_from_named, rankings};
pub use reduction::{LossSum, Reduction};
pub use scalar::{Divergence, KlEstimator};
pub(crate) use units::Layout;
pub use units::{
    Given, JudgedPair, MAX_RESPONSES, Pair, PerJudgedPair, PerPair, PerSequence, PerToken,
    Response, Reward, RewardPair, Sequence, Token, Unit,
};

/// What the macro [`objective!`](crate::objective) lets the lines of parameters name.
#[doc(hidden)]
pub mod domains {
    pub use super::{
        AVERAGE, BELOW_HALF, BOUNDED, CHOICE, Domain, FINITE, INSIDE_HALF, INSIDE_UNIT,
        NOT_NEGATIVE, ORDER, POSITIVE, PROBABILITY, Parameter, ParameterDescription, SWITCH,
        UP_TO_HALF,
    };
}

/// A line is a file and its objective, then what else the file has.
macro_rules! list {
    ($($file:ident: $Name:ident $(, $other:ident)*;)*) => {
        $(
            mod $file;
            pub use $file::{$Name $(, $other)*};
        )*

        /// Every objective, with each of its options in use.
        pub fn objectives() -> Vec<AnyObjective> {
            let mut list = vec![];
            $(list.extend($Name::examples().into_iter().map(AnyObjective::new));)*
            list
        }

        /// The objective of this name with parameters given by name: see its `from_named`.
        ///
        /// # Errors
        /// An unknown name, a parameter that is unknown, stands twice or is missing, or a value outside
        /// its domain.
        pub fn from_named(
            objective: &str,
            parameters: &[(&str, f64)],
        ) -> Result<AnyObjective, NamedError> {
            match objective {
                $(stringify!($Name) => $Name::from_named(parameters).map(AnyObjective::new),)*
                _ => Err(NamedError::of_unknown(objective, &[$(stringify!($Name)),*])),
            }
        }
    };
}

list! {
    alpha_po: AlphaPo;
    apo_down: ApoDown;
    apo_zero: ApoZero;
    bco_pair: BcoPair;
    bradley_terry: BradleyTerry;
    cispo: Cispo;
    cpo: Cpo;
    disco_pop: DiscoPop;
    dpo: Dpo;
    entropy_bonus: EntropyBonus;
    eurus: Eurus;
    exo_pair: ExoPair;
    gmpo: Gmpo;
    gspo: Gspo;
    hinge: Hinge;
    infi_fpo: InfiFpo;
    ipo: Ipo;
    irepo: Irepo;
    kl_penalty: KlPenalty, Importance;
    kto: Kto;
    lcpo: Lcpo, LcpoBase;
    lcpo_cpo: LcpoCpo;
    lcpo_sim_po: LcpoSimPo;
    log_prob_clip: LogProbClip;
    log_ratio: LogRatio;
    nca_pair: NcaPair;
    nll: Nll;
    orpo: Orpo;
    p3o: P3o;
    poft: Poft;
    pointwise_logistic: PointwiseLogistic;
    ppo_clip: PpoClip;
    reinforce: Reinforce;
    reward_gap: RewardGap;
    reward_regression: RewardRegression;
    reward_tie: RewardTie;
    rloo: Rloo;
    robust: Robust;
    rpo: Rpo, RpoDistance;
    sapo: Sapo;
    scir: Scir;
    sim_po: SimPo;
    slic: Slic;
    sppo: Sppo;
    sppo_hard: SppoHard;
    tdpo1: Tdpo1;
    tdpo2: Tdpo2;
    trust_region: TrustRegion;
    vespo: Vespo;
}

/// CUDA C++ of every objective of the list, for `kernels/objective.cu` to compile: a struct and its
/// `evaluate` each, then a line `OBJECTIVE(name, unit, per-response)`, or `TOKEN_OBJECTIVE(name)` for one
/// on tokens; and a macro `TOKEN_OBJECTIVES` of all those, each with its place in
/// [`cuda_token_objectives`].
#[doc(hidden)]
pub fn cuda_source() -> String {
    let mut types = std::collections::BTreeMap::new();
    for objective in objectives() {
        if let Some(body) = objective.cuda() {
            let (name, [unit, per_response]) = (objective.name(), objective.unit());
            let entry = match objective.layout() {
                Layout::Tokens => format!("TOKEN_OBJECTIVE({name})"),
                _ => format!("OBJECTIVE({name}, {unit}, {per_response})"),
            };
            types.insert(name, format!("{body}\n{entry}\n"));
        }
    }
    let names = cuda_token_objectives().into_iter().enumerate();
    let places: String = names.map(|(place, name)| format!(" X({place}, {name})")).collect();
    let types = types.into_values().collect::<Vec<_>>().join("\n");
    format!("{types}\n#define TOKEN_OBJECTIVES(X){places}\n")
}

/// The names of the objectives on tokens that are compiled into one kernel.
#[doc(hidden)]
pub fn cuda_token_objectives() -> Vec<&'static str> {
    let on_tokens = |objective: &AnyObjective| objective.layout() == Layout::Tokens;
    let list = objectives().into_iter().filter(on_tokens);
    let mut names: Vec<_> =
        list.filter(|objective| objective.source().is_some()).map(|o| o.name()).collect();
    names.dedup();
    names
}
