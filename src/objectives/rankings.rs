//! The list of rankings, by name.

use super::parameter::{Named, NamedError, POSITIVE};
use super::ranking::Ranking;

/// A ranking of the list.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ListedRanking {
    /// Its name in [`ranking_from_named`].
    pub name: &'static str,
    /// The function that makes it, with its parameters.
    pub call: &'static str,
    /// One of its kind.
    pub example: Ranking,
}

/// A line is a name, the function, and its parameters with the values of the example.
macro_rules! list {
    ($($Name:ident: $function:ident($($parameter:ident: $example:literal),*);)*) => {
        /// Every ranking that has a name.
        pub fn rankings() -> Vec<ListedRanking> {
            vec![$(ListedRanking {
                name: stringify!($Name),
                call: concat!(stringify!($function), "(", stringify!($($parameter),*), ")"),
                example: Ranking::$function($($example),*),
            }),*]
        }

        /// The ranking of this name with parameters given by name, for bindings; what it compares and
        /// other factors are set on what comes back.
        ///
        /// # Errors
        /// An unknown name, a parameter that is unknown, stands twice or is missing, or a value outside
        /// its domain.
        ///
        /// ```
        /// use prefuse::objectives::{Ranking, ranking_from_named};
        ///
        /// let ranking = ranking_from_named("InfoNca", &[("temperature", 0.5), ("beta", 0.1)])?;
        /// assert_eq!(ranking, Ranking::info_nca(0.1, 0.5));
        /// # Ok::<(), prefuse::objectives::NamedError>(())
        /// ```
        pub fn ranking_from_named(
            ranking: &str,
            parameters: &[(&str, f64)],
        ) -> Result<Ranking, NamedError> {
            match ranking {
                $(stringify!($Name) => {
                    #[allow(unused_variables)]
                    let named = Named::new(parameters, [$(stringify!($parameter)),*])?;
                    let ranking = Ranking::$function(
                        $(named.get(stringify!($parameter), None, POSITIVE)?),*
                    );
                    ranking.check().map_err(NamedError::Parameter)?;
                    Ok(ranking)
                })*
                _ => Err(NamedError::of_unknown(ranking, &[$(stringify!($Name)),*])),
            }
        }
    };
}

list! {
    InfoNca: info_nca(beta: 0.1, temperature: 0.5);
    KnowPat: know_pat();
    KnowPatReleased: know_pat_released();
    LipoLambda: lipo_lambda(beta: 0.1);
    LipoLambdaRax: lipo_lambda_rax(beta: 2.0);
    Nca: nca(beta: 0.1, temperature: 0.5);
    PlackettLuce: plackett_luce(beta: 0.1);
    Pro: pro();
    SteerLm: steer_lm();
}
