//! The gateway as callers and the operator meet it: real sockets on both sides. The model servers and the LLM are servers of these
//! tests, in this process.

mod callers;
mod feedback;
mod grpc;
mod harness;
mod heads;
mod labels;
mod log;
mod measuring;
mod mirror;
mod pods;
mod prompts;
mod routing;
mod signature;
mod tls;
mod traffic;
