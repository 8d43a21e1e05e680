//! What each command does. A command says `true` for success, `false` for an answer that is no
//! (exit code 1), or why it can't answer.

mod approve;
mod difference;
mod drift;
mod inspect;
mod key;
mod pack;
mod pack_agent;
mod revoke;
mod run;
mod trust;
mod verify;

use clap::CommandFactory;

use crate::arguments::{
    Arguments, Command, DeviceCommand, KeyCommand, ModelCommand, RolloutCommand, TrustCommand,
};
use crate::failure::Result;
use crate::fleet::{self, Client};
use crate::output::Output;
use crate::time;

/// Does what was asked.
///
/// # Errors
/// Says who failed, what happened and what to do next.
pub(crate) fn perform(command: Command, output: &mut Output) -> Result<bool> {
    let now = time::now()?;
    match command {
        Command::Key(KeyCommand::New(request)) => done(key::new(&request, output)),
        Command::Trust(TrustCommand::Init(request)) => done(trust::init(&request, now, output)),
        Command::Trust(TrustCommand::Rotate(request)) => done(trust::rotate(&request, now, output)),
        Command::Trust(TrustCommand::Sign { root, signers }) => {
            done(trust::sign(&root, &signers, output))
        }
        Command::Trust(TrustCommand::Show { root }) => done(trust::show(&root, now, output)),
        Command::Pack(request) => done(pack::pack(&request, now, output)),
        Command::PackAgent(request) => done(pack_agent::pack_agent(&request, now, output)),
        Command::Approve(request) => done(approve::approve(&request, now, output)),
        Command::Revoke(request) => done(revoke::revoke(&request, now, output)),
        Command::Verify(request) => verify::verify(&request, now, output),
        Command::Inspect(request) => done(inspect::inspect(&request, output)),
        Command::Run(request) => done(run::run(&request, now, output)),
        Command::Drift(request) => drift::drift(&request, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "bellwether", &mut script);
            done(output.raw(&script))
        }
        Command::Publish(request) => {
            let client = Client::new(&request.connection)?;
            done(fleet::publish(
                &client,
                &request.file,
                request.package.as_deref(),
                output,
            ))
        }
        Command::Model(command) => done(model(command, output)),
        Command::Rollout(command) => done(rollout(command, now.0, output)),
        Command::Disable(request) => done(fleet::disable(
            &Client::new(&request.connection)?,
            &request,
            output,
        )),
        Command::Device(command) => done(device(command, now.0, output)),
        Command::Why(request) => {
            let client = Client::new(&request.connection)?;
            let slot = request.slot.as_ref().map(|slot| slot.as_str());
            done(fleet::why(&client, request.device.as_str(), slot, output))
        }
    }
}

fn model(command: ModelCommand, output: &mut Output) -> Result<()> {
    match command {
        ModelCommand::List { connection } => fleet::model_list(&Client::new(&connection)?, output),
        ModelCommand::Show { model, connection } => {
            fleet::model_show(&Client::new(&connection)?, &model, output)
        }
        ModelCommand::Labels {
            model,
            device,
            connection,
        } => {
            let device = device.as_ref().map(|device| device.as_str());
            fleet::model_labels(&Client::new(&connection)?, &model, device, output)
        }
    }
}

fn rollout(command: RolloutCommand, now: u64, output: &mut Output) -> Result<()> {
    let (order, what) = match command {
        RolloutCommand::New(request) => {
            return fleet::rollout_new(&Client::new(&request.connection)?, &request, output);
        }
        RolloutCommand::Status { id, connection } => {
            return fleet::status(&Client::new(&connection)?, id, now, output);
        }
        RolloutCommand::Watch {
            id,
            timeout_secs,
            connection,
        } => {
            return fleet::watch(&Client::new(&connection)?, id, timeout_secs, output);
        }
        RolloutCommand::Start(order) => (order, "start"),
        RolloutCommand::Pause(order) => (order, "pause"),
        RolloutCommand::Resume(order) => (order, "resume"),
        RolloutCommand::Rollback(order) => (order, "rollback"),
    };
    let client = Client::new(&order.connection)?;
    fleet::rollout_order(&client, order.id, what, &order.reason, output)
}

fn device(command: DeviceCommand, now: u64, output: &mut Output) -> Result<()> {
    match command {
        DeviceCommand::List { connection } => {
            fleet::device_list(&Client::new(&connection)?, now, output)
        }
        DeviceCommand::Show { device, connection } => {
            fleet::device_show(&Client::new(&connection)?, device.as_str(), now, output)
        }
        DeviceCommand::Claim(request) => {
            fleet::claim(&Client::new(&request.connection)?, &request, output)
        }
        DeviceCommand::Revoke(request) => {
            fleet::device_revoke(&Client::new(&request.connection)?, &request, output)
        }
    }
}

fn done(result: Result<()>) -> Result<bool> {
    result.map(|()| true)
}
