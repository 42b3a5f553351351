//! What may be made, and under which name (SPEC §1).

use crate::world::{World, may_create};
use wombat_proto::wire::{self, change::Change, request::Call, response::Result as Answer};
use wombat_proto::{Error, limits::PATH_BYTES};

#[test]
fn a_number_makes_no_path_longer_than_any_client_could_name() {
    let mut world = World::new();
    let mut client = world.client();
    let mut path = String::from("/ls/test");
    for _ in 0..4 {
        path = format!("{path}/{}", "d".repeat(200));
        let node = Some(wire::NewNode { directory: true, ..wire::NewNode::default() });
        world.open_with(&mut client, wire::Open { path: path.clone(), node, ..may_create() });
    }
    let make = |world: &mut World, client: &mut _, length: usize, in_a_multi: bool| {
        let path = format!("{path}/{}", "n".repeat(length - path.len() - 1));
        let node = Some(wire::NewNode { sequential: true, ..wire::NewNode::default() });
        let create = Change::Create(wire::CreateNode { path: path.clone(), node: node.clone() });
        let changes = [wire::Change { change: Some(create) }].into();
        let create = wire::open::Create::Must.into();
        let call = match in_a_multi {
            true => Call::Multi(wire::Multi { changes, ..wire::Multi::default() }),
            false => Call::Open(wire::Open { path, node, create, ..may_create() }),
        };
        world.call(client, call)
    };
    for in_a_multi in [false, true] {
        let made = make(&mut world, &mut client, PATH_BYTES - 10, in_a_multi);
        assert!(matches!(made, Ok(Answer::Opened(_) | Answer::MultiDone(_))), "{made:?}");
        for length in [PATH_BYTES - 9, PATH_BYTES] {
            let refused = make(&mut world, &mut client, length, in_a_multi);
            let error = refused.expect_err("the name is too long");
            assert!(matches!(error.root(), Error::InvalidArgument { .. }), "{error:?}");
            assert_eq!(matches!(error, Error::Step { step: 1, .. }), in_a_multi, "{error:?}");
        }
    }
}
