// Package e2e holds the end-to-end suite: what fedlab claims, tried on real
// clusters. It drives the command as a person would and looks inside with the
// library.
//
// By default, the suite brings up a lab of its own next to whatever
// runs on the machine, kills that bring-up three times on the way, and counts at
// the end what is left. What it does with what is in the environment:
//
//   - FEDLAB is the command to test; where it is not set, the suite builds it.
//     Guides build the one of the checkout, as a person does who follows them.
//   - FEDLAB_E2E_LAB is a lab that is up, a preset or a file. The specs then run
//     on it and put back what they change; those with the label "own" need a lab
//     that may be killed and taken down, and are skipped.
//   - FEDLAB_EVIDENCE is the folder for screenshots and for what is gathered
//     about each failed spec; evidence/ of the checkout where it is not set.
//
// Each guide of docs/guides is a spec that types its commands into a shell, in a
// copy of the checkout, and has a lab of its own.
//
// Each scenario of the catalogue is a spec with the label "scenario", its group and
// its own labels; "ci" is for those that each submission runs, and "mutation" for
// those in which one thing is wrong on purpose. "again" is for their second pass.
//
// "night" is for what takes long, and runs in make e2e-all alone: a trust domain with other keys,
// over two clusters, with nested servers or with two, hosts (keys, spread, nested, replicas,
// hosts), registrations, tokens, programs that know nothing of SPIFFE ("sidecars"), all endpoints in all
// modes ("matrix"), an article's examples, most guides, a lab of an earlier fedlab, and "newcomer":
// what an ordinary user does on this machine, who is made and removed by the spec, with a
// registry full of images. "company" has most shapes in one lab, on each submission.
//
// While a spec has a lab of its own, the nodes of the suite's lab are frozen.
//
// Other labels say what a spec is about: quotes, page, browser, auth, status, up, ui,
// evidence, guide, enterprise, profile, modes, company, keys, spread, nested, replicas, hosts, shared,
// tree, registration, endpoints, tokens, sidecars, matrix. Those with "picture" also make the
// pictures of the documents, and "matrix" its table, with the flag -update.
// "own" is above; "slow" takes more than half a minute, of scenarios more than two.
package e2e
