// Command postgres runs one PostgreSQL server from Debian's programs: it makes
// the cluster of databases at the first start, one database with one role that
// is no superuser, and sees to an orderly stop. It may be killed at any moment
// and is right again at the next start.
//
// Started by root, it takes the volume over, which may be a folder of the node that
// belongs to root alone, and runs on as another user. As "postgres await" it waits
// until another PostgreSQL takes sessions.
//
// It refuses to know what is stored, and knows nothing of SPIFFE: that is what the bridge
// in front of it is for, or the program that keeps its certificate.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"syscall"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func main() {
	process.Main(func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
		if len(args) > 0 && args[0] == "await" {
			return await(ctx, args[1:], env, stderr)
		}
		return run(ctx, args, env, stderr)
	})
}

// become gives the volume to a user and keeps everybody else out of it. Then the
// process goes on as that user, for good. It is for root, who needs to be allowed no
// more than that (CAP_CHOWN, CAP_SETGID, CAP_SETUID): PostgreSQL refuses to be root.
func become(user int, volume string) error {
	found, err := os.Stat(volume)
	if err != nil {
		return err
	}
	if owner, ok := found.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != user {
		// The mode first: with these capabilities alone, root may change the mode of
		// a folder only while the folder is root's.
		if err := errors.Join(os.Chmod(volume, 0o700), os.Chown(volume, user, user)); err != nil {
			return err
		}
	}
	// The user comes last: nobody else may change groups.
	if err := syscall.Setgroups([]int{user}); err != nil {
		return fmt.Errorf("leave root's groups: %w", err)
	}
	if err := syscall.Setgid(user); err != nil {
		return fmt.Errorf("run as group %d: %w", user, err)
	}
	if err := syscall.Setuid(user); err != nil {
		return fmt.Errorf("run as user %d: %w", user, err)
	}
	return nil
}

type settings struct {
	bin          string
	data         string
	listen       string
	port         int
	database     string
	user         string
	passwordFile string
	tls          string
	runAs        int
}

// programs is the folder of PostgreSQL's programs in the image.
const programs = "/usr/lib/postgresql/15/bin"

// plainName is what a role or a database may be called, so that no name needs
// quotes.
var plainName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("postgres", stderr)
	flags.StringVar(&s.bin, "bin", programs, "folder of PostgreSQL's programs")
	flags.StringVar(&s.data, "data", "/var/lib/postgresql/data", "folder of a volume that no other server uses; the databases are in a folder below it")
	flags.StringVar(&s.listen, "listen", "*", "addresses that the server listens on, as PostgreSQL's listen_addresses has them")
	flags.IntVar(&s.port, "port", 5432, "port that the server listens on")
	flags.StringVar(&s.database, "database", "app", "name of the database")
	flags.StringVar(&s.user, "user", "app", "role that owns the database")
	flags.StringVar(&s.passwordFile, "password-file", "/run/secrets/database/password", "file with the role's password, which is set at each start")
	flags.StringVar(&s.tls, "tls-dir", "", "folder in which somebody keeps "+certificateFile+" and "+keyFile+" for TLS, and finds in "+pidFile+" whom to send SIGHUP when they are new; clients without TLS are refused then; empty is no TLS")
	flags.IntVar(&s.runAs, "run-as", 999, "number of the user, and of its group, that the server runs as where root starts it; the folder of the volume is given to that user")
	if err := process.Parse(flags, "POSTGRES", nil, args, env); err != nil {
		return s, err
	}
	if s.runAs <= 0 {
		return s, process.Usagef("read flags: -run-as is %d: want the number of a user that is not root", s.runAs)
	}
	for _, name := range []string{s.database, s.user} {
		if !plainName.MatchString(name) || name == superuser {
			return s, process.Usagef("read flags: -database or -user is %q: want lower-case letters, digits and underscores, and not %s", name, superuser)
		}
	}
	return s, nil
}

func run(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
	s, err := parse(args, env, stderr)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := become(s.runAs, s.data); err != nil {
			return fmt.Errorf("give up root's rights: %w", err)
		}
	}
	return server{settings: s, log: slog.New(slog.NewTextHandler(stderr, nil)), output: stderr}.run(ctx)
}
