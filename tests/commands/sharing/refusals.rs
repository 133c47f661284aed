//! What is refused, each with a sentence that says what to do, and nothing changed.

use serde_json::json;

use super::{as_a, as_b, lab_b, members};
use crate::lab::rest::{Named, Rest};
use crate::lab::{lab, pattern};

#[test]
fn names_that_nearly_fit_are_proposed() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "near");
    let id = rest.make(&image.name, &pattern(1000), json!({}));
    let b = lab_b(&lab);
    let share = |name: &str| as_a(&lab, &["share", name, "--with", &b]);
    let label = format!("did you mean `{}` ({id})", image.name);
    share(&image.name.replace("near", "naer")).refuses(3, &["no image in", &label]);
    share(&image.name.to_uppercase()).refuses(3, &["upper and lower case differ", &label]);
    share(&id[..13]).refuses(3, &[&label]);
    share("nothing is called like this").refuses(3, &["no image in", "see what there is with: snapcow list"]);
    // The same for every command that takes an image.
    as_a(&lab, &["members", &image.name.to_uppercase()]).refuses(3, &[&label]);
    let source = format!("glance:{}", image.name.replace("near", "naer"));
    as_a(&lab, &["convert", &source, "/dev/null/x"]).refuses(3, &[&label]);
    assert_eq!(rest.show(&id)["visibility"], "private");
}

#[test]
fn an_image_of_others_or_of_several_is_not_shared() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (image, twice) = (Named::new(&rest, "share-foreign"), Named::new(&rest, "share-twice"));
    let id = rest.make(&image.name, &pattern(1000), json!({"visibility": "shared"}));
    let twins = [0, 1].map(|_| rest.make(&twice.name, &pattern(1000), json!({})));
    let (a, b) = (lab.text("/projects/lab-a"), lab_b(&lab));

    as_a(&lab, &["share", &twice.name, "--with", &b]).refuses(3, &["names 2 images", &twins[0], &twins[1]]);
    as_a(&lab, &["share", &id, "--with", &b, "--accept-as", "lab-b"]).ok();
    as_b(&lab, &["share", &image.name, "--with", &a])
        .refuses(4, &[&format!("belongs to project {a}"), "only its owner shares it"]);
    as_b(&lab, &["unshare", &id, "--from", &b]).refuses(4, &["only its owner"]);
    assert_eq!(members(&rest, &id), [(b, "accepted".to_owned())]);
}

#[test]
fn a_wrong_other_end_is_refused_before_anything_changes() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "share-wrong");
    let id = rest.make(&image.name, &pattern(1000), json!({}));
    let (a, b) = (lab.text("/projects/lab-a"), lab_b(&lab));
    let name = image.name.as_str();

    as_a(&lab, &["share", name]).exits(2);
    as_a(&lab, &["share", name, "--with", &a]).refuses(2, &["owns image", "name another project"]);
    as_a(&lab, &["share", name, "--accept-as", "lab-ranges"]).refuses(2, &["that owns image", "--accept-as"]);
    as_a(&lab, &["share", name, "--with", &b, "--accept-as", "lab-admin"])
        .refuses(2, &["not among those of --with", "--with "]);
    as_a(&lab, &["share", name, "--with", &b, "--accept-as", "no-such-cloud"]).refuses(4, &["no-such-cloud"]);
    // By default only administrators may look up names.
    as_a(&lab, &["share", name, "--with", "lab-b"])
        .refuses(4, &["none of yours", "openstack token issue -f value -c project_id"]);
    assert_eq!(rest.show(&id)["visibility"], "private");
}

#[test]
fn only_what_is_shared_with_us_can_be_accepted() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "accept");
    let id = rest.make(&image.name, &pattern(1000), json!({}));
    let (a, b) = (lab.text("/projects/lab-a"), lab_b(&lab));
    let ask = format!("snapcow share IMAGE --with {b}");

    // A private image, by ID and by name; one that there is not.
    for name in [id.as_str(), image.name.as_str(), "c0ffee00-0000-4000-8000-000000000000"] {
        as_b(&lab, &["accept", name]).refuses(3, &["is shared with project", &ask]);
        as_b(&lab, &["reject", name]).refuses(3, &[&ask]);
    }
    as_a(&lab, &["accept", &id]).refuses(3, &["belongs to this project itself"]);
    as_a(&lab, &["share", &id, "--with", &b]).ok();
    as_a(&lab, &["accept", &id]).refuses(3, &["belongs to this project itself"]);
    as_b(&lab, &["accept", &image.name.to_uppercase()]).refuses(3, &["did you mean", &id]);

    let twin = rest.make(&image.name, &pattern(1000), json!({"visibility": "shared"}));
    as_a(&lab, &["share", &twin, "--with", &b]).ok();
    as_b(&lab, &["accept", &image.name]).refuses(3, &["names 2 images", &id, &twin, &a]);
    as_b(&lab, &["accept", &twin]).ok();
}
