//! Who is asked for texts.

use super::prompt;
use crate::api::{
    evaluation::EndpointProtocol,
    run::{EvaluationTarget, PromptSide, PromptVariables},
};

/// The sides of a prompt that is a target.
pub(crate) fn prompt_sides(target: &EvaluationTarget) -> Option<prompt::Sides<'_>> {
    match target {
        EvaluationTarget::Prompt {
            release,
            own,
            stable,
        } => Some(prompt::Sides {
            named: prompt::Named::Release(release),
            own,
            stable: stable.as_ref(),
        }),
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Endpoint { .. }
        | EvaluationTarget::Predictions(_) => None,
    }
}

/// An endpoint that is asked for texts.
pub(crate) struct Chat {
    model: String,
    own: PromptSide,
}

impl Chat {
    pub(crate) fn sides(&self) -> prompt::Sides<'_> {
        prompt::Sides {
            named: prompt::Named::Model(&self.model),
            own: &self.own,
            stable: None,
        }
    }
}

/// The endpoint that is a target, if it answers with texts.
pub(crate) fn chat_endpoint(target: &EvaluationTarget) -> Option<Chat> {
    let EvaluationTarget::Endpoint {
        url,
        protocol: EndpointProtocol::OpenAi,
        model,
        prices,
    } = target
    else {
        return None;
    };
    Some(Chat {
        model: model.clone().unwrap_or_default(),
        own: PromptSide {
            url: url.clone(),
            takes: PromptVariables {
                message: true,
                ..PromptVariables::default()
            },
            prices: prices.clone(),
        },
    })
}
