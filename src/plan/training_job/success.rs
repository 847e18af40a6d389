//! An attempt that ended well: its version is recorded, with what its report says.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{children, decide::Decider, reason};
use crate::{
    api::{
        condition::{bounded, kind},
        run::{Report, Summary},
        training_job::TrainingPhase,
    },
    plan::Action,
};

/// Most metrics kept.
const METRICS: usize = 100;

impl Decider<'_> {
    pub(super) fn succeed(&mut self, report: &Report) {
        let Some(version) = self.version() else {
            return;
        };
        let mut model = report.model.clone().unwrap_or_default();
        let fixed = self.status.model.clone().unwrap_or_default();
        model.name = fixed.name;
        model.version = fixed.version;
        model.uri = fixed.uri;
        model.credentials = fixed.credentials;
        model.training_job = fixed.training_job;
        model.digest = model.digest.or_else(|| report.summary.digest.clone());
        model.trained_time = model.trained_time.or(Some(Time(self.now)));
        model.datasets = report
            .datasets
            .iter()
            .map(|d| (d.name.clone(), d.digest.clone()))
            .collect();
        if let Some(profile) = &report.profile {
            model.profile = Some(children::profile_name(
                &self.observed.job.spec.model.name,
                &version,
            ));
            self.plan
                .actions
                .push(Action::Create(children::profile_config_map(
                    &self.observed.job,
                    &version,
                    profile,
                )));
        }
        let digest = model.digest.clone().unwrap_or_default();
        self.status.model = Some(model);
        self.status.metrics = report.metrics.iter().take(METRICS).cloned().collect();
        self.status.datasets = report.datasets.clone();
        self.complete(
            reason::SUCCEEDED,
            format!("version {version} is published ({digest})"),
        );
    }

    /// The version is there, but neither the attempt's pod nor the one that read again could be asked.
    pub(super) fn succeed_unread(&mut self, summary: &Summary) {
        let Some(version) = self.version() else {
            return;
        };
        if let Some(model) = &mut self.status.model {
            model.digest = summary.digest.clone().or(model.digest.take());
            model.trained_time = Some(Time(self.now));
            if model.digest.is_none() {
                return self.fail(reason::REPORT_MISSED, format!("version {version} may have been written to its output, but its report could not be read; look whether a NetworkPolicy blocks the operator from port 9465 of the pods"));
            }
        }
        self.complete(
            reason::REPORT_MISSED,
            format!("version {version} is published, but its report could not be read (no metrics, no profile); look whether a NetworkPolicy blocks the operator from port 9465 of the pods"),
        );
    }

    /// The pod ended well before the report was read: a small Job reads it again from the output.
    pub(super) fn read_again(&mut self) {
        let (Some(start), Some(version)) =
            (self.status.start_time.as_ref().map(|t| t.0), self.version())
        else {
            return;
        };
        let name = children::report_job_name(&self.observed.job.name_any());
        let job =
            children::attempt_job(self.observed, &name, self.status.attempts, &version, start);
        self.wait(
            TrainingPhase::Publishing,
            reason::RUNNING,
            format!("version {version} is written; its report is read again from the output"),
        );
        self.plan.actions.push(Action::Create(job));
    }

    fn complete(&mut self, reason: &'static str, message: String) {
        self.status.phase = TrainingPhase::Succeeded;
        self.status.completion_time = Some(Time(self.now));
        self.conditions(true, false, false, reason, &message);
        self.condition(kind::COMPLETE, true, reason, &message);
        self.condition(kind::FAILED, false, reason, "it ended well");
        self.status.message = bounded(message.clone());
        self.write_status();
        self.event(false, reason, message);
    }
}
