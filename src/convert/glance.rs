//! A conversion into an image whose record exists.

use std::any::Any;

use super::{Conversion, Receipt, Target, convert};
use crate::error::Result;
use crate::facts::{SinkFacts, SinkOrder};
use crate::hash::Algorithm;
use crate::openstack::{Cloud, Image};
use crate::sink::GlanceSink;

impl Conversion {
    /// Converts into a new image, `queued` so far; a failure deletes it.
    ///
    /// # Errors
    /// As [`crate::plan::Plan::new`] and [`convert`].
    pub fn to_glance(self, cloud: &Cloud, created: &Image) -> Result<Receipt> {
        let name = format!("image {}", created.label());
        let (plan, job) = self.planned(SinkFacts { name, order: SinkOrder::InOrder })?;
        let cancel = job.cancel.clone();
        let sink = GlanceSink::new(
            cloud,
            created,
            None,
            plan.budget.upload_queue_bytes,
            // A cloud's images have one algorithm.
            job.source_digest.as_ref().map_or(Algorithm::Sha512, |digest| digest.algorithm),
            Box::new(move |wake| Box::new(cancel.on_trigger(wake)) as Box<dyn Any + Send>),
        );
        convert(&plan, &job, Target::Delivery(Box::new(sink)))
    }
}
