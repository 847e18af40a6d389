//! A run that is going on: what its pod says, and what comes of it.

use jiff::SignedDuration;
use kube::ResourceExt;

use super::{
    children,
    decide::{Decider, RETRIES},
    reason, record,
};
use crate::{
    api::{
        condition::bounded,
        evaluation::{EvaluationRun, ReportStatus},
        gate::Verdict,
        run::{Page, Report, Summary},
        verdict,
    },
    plan::{Action, claim, earlier, pod, run as runs},
};

impl Decider<'_> {
    pub(super) fn follow(&mut self, mut run: EvaluationRun) {
        let seconds = self
            .observed
            .evaluation
            .spec
            .active_deadline_seconds
            .unwrap_or(children::DEFAULT_DEADLINE);
        let deadline =
            run.start_time.as_ref().map_or(self.now, |t| t.0) + SignedDuration::from_secs(seconds);
        if let Some(report) = self.observed.answers.report.clone() {
            return if report.summary.succeeded {
                self.judged(run, &report)
            } else {
                self.unmeasured(run, &report.summary)
            };
        }
        if self.now >= deadline {
            self.delete_job(&run);
            return self.end(
                run,
                Verdict::Error,
                reason::DEADLINE_EXCEEDED,
                format!("activeDeadlineSeconds: {seconds} have passed without a result"),
            );
        }
        self.check_at(deadline);
        let name = children::job_name(&self.observed.evaluation.name_any(), run.number);
        let Some(job) = self.observed.jobs.get(&name) else {
            return self.make(run);
        };
        let pod = runs::newest_pod(&self.observed.pods, &name);
        if let Some(ended) = runs::job_ended(job) {
            let summary = pod.and_then(|p| {
                pod::failed_before(p)
                    .and_then(|c| pod::summary(p, &c.name))
                    .or_else(|| pod::summary(p, "evaluator"))
            });
            return match summary {
                Some(summary) if !summary.succeeded => self.unmeasured(run, &summary),
                _ => {
                    let before = pod.and_then(pod::failed_before);
                    let before = before.and_then(|c| {
                        Some(format!("container {}: {}", c.name, pod::last_words(c)?))
                    });
                    let message = before
                        .or_else(|| {
                            let status = pod?.status.as_ref()?;
                            let mut all = status.container_statuses.iter().flatten();
                            all.find_map(pod::last_words)
                        })
                        .unwrap_or(ended);
                    self.end(
                        run,
                        Verdict::Error,
                        reason::RUN_FAILED,
                        format!("the run's pod ended without a report: {message}"),
                    )
                }
            };
        }
        let shared = pod.map(|p| claim::not_shareable(p, &self.observed.claims, self.now));
        let shared = shared.unwrap_or_default();
        self.plan.check_at = earlier(self.plan.check_at, shared.check_at);
        if let Some(message) = shared.message {
            run.message = bounded(message.clone());
            return self.waiting(run, reason::VOLUME_NOT_SHAREABLE, message);
        }
        match pod.and_then(pod::trouble) {
            Some(trouble) => {
                run.message = bounded(format!("{}: {}", trouble.reason, trouble.message));
                let message = run.message.clone();
                self.running(run, message);
            }
            None => {
                let message = format!("run {} measures {}", run.number, run.target);
                self.running(run, message);
            }
        }
    }

    pub(super) fn judged(&mut self, mut run: EvaluationRun, report: &Report) {
        run.metrics = record::kept(&report.metrics, &self.observed.evaluation.spec.gates);
        run.rows = report.summary.rows;
        run.not_asked = report.summary.not_asked;
        run.tokens = report.summary.tokens;
        run.cost = report.summary.cost;
        run.report = report.page.as_ref().map(|page| self.report(&run, page));
        run.dataset_digest = report.summary.dataset_digest.clone();
        // Judged on everything that was measured, not on what is kept.
        run.gates = self
            .observed
            .evaluation
            .spec
            .gates
            .iter()
            .map(|g| verdict::judge(g, &report.metrics))
            .collect();
        let verdict = verdict::verdict(&run.gates);
        let worst = run
            .gates
            .iter()
            .find(|g| g.verdict == verdict)
            .map(|g| g.message.clone());
        let message = match (verdict, worst) {
            (Verdict::Passed, Some(_)) => {
                format!("{}: all {} gates passed", run.target, run.gates.len())
            }
            (_, Some(worst)) => format!("{}: {worst}", run.target),
            (_, None) => format!("{} is measured; there are no gates", run.target),
        };
        let message = match run.not_asked {
            Some(left) => format!("{message}; {left} rows weren't asked, as fewer were enough"),
            None => message,
        };
        let message = match self.use_holdout(&run) {
            Some(worn) => format!("{message}; {worn}"),
            None => message,
        };
        let reason = match verdict {
            Verdict::Failed => reason::FAILED,
            Verdict::Error => reason::RUN_FAILED,
            Verdict::Inconclusive => reason::INCONCLUSIVE,
            _ => reason::PASSED,
        };
        self.end(run, verdict, reason, message);
    }

    /// Keeps the report, under a name that status then says.
    fn report(&mut self, run: &EvaluationRun, page: &Page) -> ReportStatus {
        let owner = &self.observed.evaluation;
        if let Some(html) = &page.html {
            let map = children::report_config_map(owner, run.number, html);
            self.plan.actions.push(Action::Create(map));
        }
        let name = children::report_name(&owner.name_any(), run.number);
        ReportStatus {
            config_map: page.html.as_ref().map(|_| name),
            uri: page.uri.clone(),
            message: page.message.clone().map(bounded),
        }
    }

    fn unmeasured(&mut self, mut run: EvaluationRun, summary: &Summary) {
        if summary.permanent {
            run.failures = RETRIES;
        }
        let reason = summary
            .reason
            .clone()
            .unwrap_or_else(|| "Failed".to_owned());
        // A target that fails now may answer soon; that it still doesn't is no verdict either way.
        let last = run.failures + 1 >= RETRIES;
        let (verdict, why) = match summary.inconclusive && last {
            true => (Verdict::Inconclusive, reason::INCONCLUSIVE),
            false => (Verdict::Error, reason::RUN_FAILED),
        };
        self.end(run, verdict, why, format!("{reason}: {}", summary.message));
    }
}
