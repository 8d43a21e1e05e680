//! A worker that misbehaves on command, to test its parent.
//!
//! Its model is the command: `<when> <what>`, when being `load`, `run`, or `second` (run).

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    process::exit,
    time::Duration,
};

use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    Tensor,
    limits::{Confinement, Lock},
    wire::{self, FRAME_BYTES_MAX, FrameDecoder, PortShape, Request, Response},
};
use rustix::process::{Signal, getpid, kill_process};

fn main() {
    let mut socket = File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    // The parent's first byte, which brings the memory for large frames; not of use here.
    socket.read_exact(&mut [0]).unwrap();
    let mut command = String::new();
    std::io::stdin().read_to_string(&mut command).unwrap();
    let (when, what) = command.split_once(' ').unwrap();
    let mut outputs = Vec::new();
    let mut runs = 0;
    while let Some(request) = next(&mut socket) {
        let now = match &request {
            Request::Load { .. } => "load",
            Request::Run { .. } if runs == 0 => "run",
            Request::Run { .. } => "second",
        };
        if now == when {
            misbehave(what, &mut socket);
        }
        let (response, tensors) = match request {
            Request::Load { outputs: ports, .. } => {
                outputs = ports;
                (loaded(), vec![])
            }
            Request::Run { tensors, .. } => {
                runs += 1;
                let batch = tensors.first().and_then(|t| t.shape.first()).copied();
                let zeros: Vec<_> = outputs.iter().map(|port| zeros(port, batch)).collect();
                let tensors = wire::heads(&zeros);
                (Response::Ran { tensors }, zeros)
            }
        };
        let mut reply = Vec::new();
        wire::encode(&response, &tensors, &mut reply).unwrap();
        socket.write_all(&reply).unwrap();
    }
}

/// It is not confined at all, and says so as a real one would.
fn loaded() -> Response {
    Response::Loaded {
        confinement: Confinement {
            files: Lock::Absent,
            calls: false,
        },
    }
}

fn misbehave(what: &str, socket: &mut File) {
    match what {
        "well" => {}
        "panic" => panic!("the model said so"),
        "abort" => std::process::abort(),
        // Not SEGV: the run time catches that one, and goes on if it was only sent.
        "fault" => kill_process(getpid(), Signal::ILL).unwrap(),
        "killed" => kill_process(getpid(), Signal::KILL).unwrap(),
        "exit" => exit(3),
        "eat" => drop(std::hint::black_box(vec![1_u8; 1 << 46])),
        "hang" => wait(),
        "close" => exit(0),
        "garbage" => socket.write_all(&[5, 0, 0, 0, 0xff, 1, 2, 3, 4]).unwrap(),
        "long" => socket.write_all(&u32::MAX.to_le_bytes()).unwrap(),
        "half" => {
            socket.write_all(&[200, 0, 0, 0, 1]).unwrap();
            wait();
        }
        "chatter" => {
            let line = "x".repeat(8192);
            (0..512).for_each(|_| eprintln!("{line}"));
            panic!("after much talk");
        }
        "flood" => loop {
            // More than any contract's outputs.
            socket.write_all(&[0x7f; 8192]).unwrap();
        },
        other => panic!("no such misbehaviour: {other}"),
    }
}

/// Longer than any test's deadline; the parent kills it.
fn wait() {
    std::thread::sleep(Duration::from_secs(600));
}

fn zeros(port: &PortShape, batch: Option<u32>) -> Tensor {
    assert_eq!(port.dtype, DType::F32);
    let size = |dim: &Dim| match dim {
        Dim::Batch => batch.unwrap_or(1),
        Dim::Fixed(size) => *size,
    };
    let shape: Vec<u32> = port.shape.iter().map(size).collect();
    let values = vec![0.0; shape.iter().product::<u32>() as usize];
    Tensor::from_f32(port.name.clone(), &shape, &values)
}

fn next(socket: &mut File) -> Option<Request> {
    let mut decoder = FrameDecoder::default();
    let mut buffer = [0; 4096];
    while decoder.frame().is_none() {
        let room = decoder.missing().clamp(1, buffer.len());
        match socket.read(&mut buffer[..room]).unwrap() {
            0 => return None,
            n => decoder.feed(&buffer[..n], FRAME_BYTES_MAX).unwrap(),
        }
    }
    let (request, _) = wire::decode(decoder.frame().unwrap()).unwrap();
    Some(request)
}
