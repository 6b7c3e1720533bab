// Package host says what a machine offers a lab and what it lacks, and repairs
// what it can. Survey reads facts, Machine.Findings judges them without looking
// at anything else, Remedies orders the changes that would help, and Setup
// announces and makes them.
//
// Only root on Debian, Ubuntu and their kin is helped; anybody else is told
// what to do. A Docker that the client reaches somewhere else, by DOCKER_HOST
// or a context, is used and never changed.
//
// The package knows nothing of clusters beyond their number, and nothing of images
// beyond whether they are built here. It downloads nothing but Debian's own
// packages.
//
// Setup notes what it changes in /usr/local/lib/fedlab/setup.json, and Undo puts
// it back: the entries in /etc/docker/daemon.json, the OCI runtime and its
// source, and kernel settings, which last until the next boot anyway. Two things
// stay for a person to undo: the packages that it installed, as apt-get's log
// names them, and a dockerd that it started where no init system does, with its
// log /var/log/fedlab-dockerd.log. SIGTERM to the process in /var/run/docker.pid
// stops it.
package host
