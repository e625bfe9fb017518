//! How Vestibule behaves where today's products fail: the same questions that they were asked, as tables beside the best of
//! their answers. `tests/behaviour/run` builds the program and this, and says how to ask for one table.
//!
//! Everything runs on loopback, through the program as it is shipped, against the provider and the application of the tests.
//! A cell that is worse than it should be is marked, and ends the run with 1.

mod away;
mod bodies;
mod configuration;
mod cookies;
mod ended;
mod house;
mod load;
mod renewal;
mod resources;
mod table;

use std::process::ExitCode;

use house::Kit;

const TABLES: [&str; 7] = ["renewal", "away", "ended", "bodies", "cookies", "resources", "configuration"];

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().expect("the program to measure, then tables");
    let (short, wanted): (Vec<_>, Vec<_>) = arguments.partition(|word| word == "short");
    let kit = Kit { program, short: !short.is_empty() };
    let chosen: Vec<_> =
        TABLES.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|one| one == name)).collect();
    assert!(chosen.len() >= wanted.len(), "there are the tables {TABLES:?}, not all of {wanted:?}");
    let mut good = true;
    for name in chosen {
        let table = match name {
            "renewal" => renewal::run(&kit).await,
            "away" => away::run(&kit).await,
            "ended" => ended::run(&kit).await,
            "bodies" => bodies::run(&kit).await,
            "cookies" => cookies::run(&kit).await,
            "resources" => resources::run(&kit).await,
            _ => configuration::run(&kit).await,
        };
        good &= table.print();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
