// Package host says what a machine offers a lab and what it lacks, and mends
// what it can. Survey reads facts, Machine.Findings judges them without looking
// at anything else, Remedies orders the changes that would help, and Setup
// announces and makes them.
//
// Only root on Debian, Ubuntu and their kin is helped; anybody else is told
// what to do. A Docker that the client reaches somewhere else, by DOCKER_HOST
// or a context, is used and never changed.
//
// The package knows nothing of clusters beyond their number, nor of images
// beyond whether they are built here. It downloads nothing but Debian's own
// packages.
//
// What Setup leaves behind, for there is no way back but by hand:
//
//   - the packages it installed, as apt-get's log names them;
//   - /usr/local/lib/fedlab, with the OCI runtime and its source, and the
//     entries "runtimes"."fedlab" and "default-runtime" in
//     /etc/docker/daemon.json, where capabilities are missing. Take the entries
//     out before the folder: containers made with the runtime need it to stop;
//   - a dockerd that runs on, and its log /var/log/fedlab-dockerd.log, where no
//     init system starts it. SIGTERM to the process in /var/run/docker.pid
//     stops it;
//   - higher inotify limits, until the next boot.
package host
