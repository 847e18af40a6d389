//! A TrainingJob as target: what it said of its version is judged, once it has ended. Nobody is asked, so there is no Job.

use kube::ResourceExt;

use super::{
    decide::{Decider, RETRIES, Wanted},
    reason,
};
use crate::api::{
    TrainingJob,
    condition::{self, kind},
    evaluation::EvaluationRun,
    gate::Verdict,
    run::{Report, Summary},
    training_job::TrainingJobStatus,
    verdict,
};

/// The status of a TrainingJob that has ended.
fn ended(job: &TrainingJob) -> Option<&TrainingJobStatus> {
    let status = job.status.as_ref()?;
    let is = |kind| condition::is_true(&status.conditions, kind);
    (is(kind::COMPLETE) || is(kind::FAILED)).then_some(status)
}

impl Decider<'_> {
    /// The run that this TrainingJob asks for, once it has ended.
    pub(super) fn of_training(&self, name: &str) -> Wanted {
        let Some(job) = &self.observed.training_job else {
            return Wanted::Nothing(format!("TrainingJob {name} doesn't exist (yet)"));
        };
        let Some(status) = ended(job) else {
            return Wanted::Nothing(format!("TrainingJob {name} has not ended yet"));
        };
        let version = status.model.as_ref().and_then(|m| m.version.clone());
        let said = version.as_deref().unwrap_or("without a version");
        Wanted::Run(Box::new(EvaluationRun {
            target: format!("TrainingJob {name} {said}"),
            release: job.uid(),
            revision: version,
            generation: self
                .observed
                .evaluation
                .metadata
                .generation
                .unwrap_or_default(),
            ..EvaluationRun::default()
        }))
    }

    /// Judges a run of a TrainingJob, if it is one: all that it is judged on is known.
    pub(super) fn judge_training(&mut self, mut run: EvaluationRun) -> Option<EvaluationRun> {
        if self.observed.evaluation.spec.target.training_job.is_none() {
            return Some(run);
        }
        let job = self.observed.training_job.as_ref();
        let Some(status) = job.and_then(ended) else {
            return Some(run);
        };
        if condition::is_true(&status.conditions, kind::FAILED) {
            run.failures = RETRIES;
            let message = format!("{} has failed: {}", run.target, status.message);
            self.end(run, Verdict::Error, reason::RUN_FAILED, message);
            return None;
        }
        let report = Report {
            summary: Summary {
                succeeded: true,
                ..Summary::default()
            },
            metrics: status.metrics.clone(),
            ..Report::default()
        };
        let gates = self.observed.evaluation.spec.gates.iter();
        let gates: Vec<_> = gates.map(|g| verdict::judge(g, &report.metrics)).collect();
        if verdict::verdict(&gates) == Verdict::Error {
            // What it said stays what it said.
            run.failures = RETRIES;
        }
        self.judged(run, &report);
        None
    }
}
