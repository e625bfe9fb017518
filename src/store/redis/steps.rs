//! The steps of a series: a mark as a hash, and what the last step brought as another, which expires by itself.

use std::time::Duration;

use super::link::Connection;
use super::{Redis, millis, number};
use crate::store::backend::{Answer, Steps};
use crate::store::steps::{Brought, Step, Stepped};
use crate::store::{Handle, LARGEST, StoreError};

const CORRUPT: StoreError = StoreError::Corrupt("fields that are no mark's");

impl Redis {
    fn mark(&self, series: &Handle) -> Vec<u8> {
        self.key("t", series.bytes())
    }

    fn newest(&self, series: &Handle) -> Vec<u8> {
        self.key("n", series.bytes())
    }

    /// What a step as late as `least` brought.
    async fn brought(&self, series: &Handle, least: u64) -> Result<Option<Brought>, StoreError> {
        let key = self.newest(series);
        let fields = |mut connection: Connection| {
            let key = &key;
            async move {
                let fields: (Option<Vec<u8>>, Option<u64>) =
                    redis::cmd("HMGET").arg(key).arg(&["b", "n"]).query_async(&mut connection).await?;
                let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await?;
                Ok((fields, left))
            }
        };
        let ((bytes, by), left) = self.link.ask(true, fields).await?;
        let left = u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis);
        Ok(match (bytes, by, left) {
            (Some(bytes), Some(by), Some(left)) if by >= least && bytes.len() <= LARGEST => {
                Some(Brought { bytes, left })
            }
            _ => None,
        })
    }
}

impl Steps for Redis {
    fn take_step<'a>(&'a self, step: &'a Step, lease: Duration, keep: Duration) -> Answer<'a, Stepped> {
        Box::pin(async move {
            let (key, bid) = (self.mark(&step.series), number(step.bid.0));
            let arguments: [&[u8]; 4] = [&number(step.number), &bid, &millis(lease), &millis(keep)];
            let answer: Vec<i64> = self.run(true, &self.scripts.take_step, &key, &arguments).await?;
            match *answer {
                [1] => {
                    self.settle(&key).await;
                    Ok(Stepped::Ours(*step))
                }
                [2, rest] => Ok(Stepped::Busy(Duration::from_millis(u64::try_from(rest).unwrap_or(0)))),
                [3] => Ok(Stepped::Over(self.brought(&step.series, step.number).await?)),
                [4] => Ok(Stepped::Lost),
                _ => Err(CORRUPT),
            }
        })
    }

    fn finish_step<'a>(
        &'a self,
        step: &'a Step,
        brought: Option<(&'a [u8], Duration)>,
        keep: Duration,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            let (by, bid) = (number(step.number), number(step.bid.0));
            if let Some((bytes, life)) = brought {
                // Before the mark says so: whoever is told that it is over finds it.
                let arguments: [&[u8]; 3] = [&by, bytes, &millis(life)];
                let () = self.run(true, &self.scripts.bring, &self.newest(&step.series), &arguments).await?;
            }
            let state: &[u8] = if brought.is_some() { b"0" } else { b"-1" };
            let arguments: [&[u8]; 4] = [&by, &bid, state, &millis(keep)];
            let key = self.mark(&step.series);
            let was: i64 = self.run(true, &self.scripts.finish_step, &key, &arguments).await?;
            self.settle(&key).await;
            if was < 0 { Err(CORRUPT) } else { Ok(was == 1) }
        })
    }

    fn release_step<'a>(&'a self, step: &'a Step) -> Answer<'a, bool> {
        Box::pin(async move {
            let arguments: [&[u8]; 2] = [&number(step.number), &number(step.bid.0)];
            let was: i64 = self.run(true, &self.scripts.release_step, &self.mark(&step.series), &arguments).await?;
            if was < 0 { Err(CORRUPT) } else { Ok(was == 1) }
        })
    }

    fn shorten_step<'a>(&'a self, series: &'a Handle, by: u64, life: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let arguments: [&[u8]; 2] = [&number(by), &millis(life)];
            self.run(true, &self.scripts.shorten, &self.newest(series), &arguments).await
        })
    }
}
