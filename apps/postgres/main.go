// Command postgres runs one PostgreSQL server from Debian's programs: it makes
// the cluster of databases at the first start, one database with one role that
// is no superuser, and sees to an orderly stop. It may be killed at any moment
// and is right again at the next start.
//
// As "postgres give" it prepares the volume, which may belong to root. As
// "postgres await" it waits until another PostgreSQL takes sessions.
//
// It refuses to know what is stored, and knows nothing of SPIFFE: that is what
// the bridge in front of it is for.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"regexp"
	"syscall"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func main() {
	process.Main(func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
		if len(args) > 0 {
			switch args[0] {
			case "give":
				return give(args[1:], env, stderr)
			case "await":
				return await(ctx, args[1:], env, stderr)
			}
		}
		return run(ctx, args, env, stderr)
	})
}

// give is for root: it gives the volume to the user that the server runs as,
// and keeps everybody else out. It needs to be allowed no more than that
// (CAP_CHOWN), and does nothing the second time.
func give(args []string, env func(string) string, stderr io.Writer) error {
	flags := process.Flags("postgres give", stderr)
	data := flags.String("data", "/var/lib/postgresql/data", "folder to give")
	to := flags.Int("to", 999, "number of the user and the group that get it")
	if err := process.Parse(flags, "POSTGRES", nil, args, env); err != nil {
		return err
	}
	found, err := os.Stat(*data)
	if err != nil {
		return err
	}
	if owner, ok := found.Sys().(*syscall.Stat_t); ok && int(owner.Uid) == *to {
		return nil
	}
	if err := os.Chmod(*data, 0o700); err != nil {
		return err
	}
	return os.Chown(*data, *to, *to)
}

type settings struct {
	bin          string
	data         string
	listen       string
	port         int
	database     string
	user         string
	passwordFile string
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
	if err := process.Parse(flags, "POSTGRES", nil, args, env); err != nil {
		return s, err
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
	return server{settings: s, log: slog.New(slog.NewTextHandler(stderr, nil)), output: stderr}.run(ctx)
}
