//! The steps of a series: one row, with what the last step brought.

use std::time::Duration;

use sqlx::Row as _;

use super::{POSTGRES, Pool, SQLITE, Sql, Statements, millis, natural, told, whole};
use crate::store::backend::{Answer, Steps};
use crate::store::steps::{Brought, Step, Stepped};
use crate::store::{Handle, LARGEST};

/// In the place of a lease's end.
const OVER: i64 = 0;
const LOST: i64 = -1;

impl Steps for Sql {
    fn take_step<'a>(&'a self, step: &'a Step, lease: Duration, keep: Duration) -> Answer<'a, Stepped> {
        Box::pin(async move {
            self.ready().await?;
            self.tidy().await.map_err(told)?;
            each!(self, |pool, sql| {
                let take = sqlx::query(sql.take_step).bind(&step.series.0[..]).bind(whole(step.number));
                let take = take.bind(whole(step.bid.0)).bind(millis(lease)).bind(millis(keep));
                if take.execute(pool).await.map_err(told)?.rows_affected() > 0 {
                    return Ok(Stepped::Ours(*step));
                }
                let why = sqlx::query(sql.step).bind(&step.series.0[..]).bind(whole(step.number));
                let Some(row) = why.fetch_optional(pool).await.map_err(told)? else {
                    // It expired in between: whoever asks again gets it.
                    return Ok(Stepped::Busy(Duration::ZERO));
                };
                let number = |at: usize| row.try_get::<i64, _>(at).map_err(told);
                let span = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
                let (leased, rest) = (number(1)?, span(number(2)?));
                if natural(number(0)?)? == step.number && leased != OVER {
                    return Ok(if rest.is_zero() { Stepped::Lost } else { Stepped::Busy(rest) });
                }
                let bytes: Option<Vec<u8>> = row.try_get(3).map_err(told)?;
                let left = span(number(4)?);
                let bytes = bytes.filter(|bytes| bytes.len() <= LARGEST && !left.is_zero());
                Ok(Stepped::Over(bytes.map(|bytes| Brought { bytes, left })))
            })
        })
    }

    fn finish_step<'a>(
        &'a self,
        step: &'a Step,
        brought: Option<(&'a [u8], Duration)>,
        keep: Duration,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let finish = sqlx::query(sql.finish_step).bind(&step.series.0[..]).bind(whole(step.number));
                let finish = finish.bind(whole(step.bid.0)).bind(if brought.is_some() { OVER } else { LOST });
                let (bytes, life) = brought.unzip();
                let finish = finish.bind(bytes).bind(life.map_or(0, millis)).bind(millis(keep));
                Ok(finish.execute(pool).await.map_err(told)?.rows_affected() > 0)
            })
        })
    }

    fn release_step<'a>(&'a self, step: &'a Step) -> Answer<'a, bool> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let release = sqlx::query(sql.release_step).bind(&step.series.0[..]).bind(whole(step.number));
                Ok(release.bind(whole(step.bid.0)).execute(pool).await.map_err(told)?.rows_affected() > 0)
            })
        })
    }

    fn shorten_step<'a>(&'a self, series: &'a Handle, by: u64, life: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let shorten = sqlx::query(sql.shorten_step).bind(&series.0[..]).bind(whole(by)).bind(millis(life));
                shorten.execute(pool).await.map(drop).map_err(told)
            })
        })
    }
}
