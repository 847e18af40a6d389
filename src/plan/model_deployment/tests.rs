//! Whole lives of a ModelDeployment against a small world that carries plans out, and crashes where it is told to.

mod demands;
mod frozen;
mod labels;
mod loops;
mod lost;
mod new_data;
mod scaling;
mod serving;
mod world;
