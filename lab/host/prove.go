package host

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
)

const (
	proofImage   = "fedlab.local/proof:setup"
	proofProgram = libDir + "/proof"
	proofArchive = proofProgram + ".tar"
)

const proofSource = "package main\n\nfunc main() {}\n"

// prove starts one privileged container, as kind's nodes are. Its image is made
// for that, since a machine that was just set up has none.
type prove struct{}

func (prove) String() string {
	return "start a privileged container to see that the OCI runtime works, and remove it with its image"
}

func (prove) Apply(ctx context.Context, sys System) (err error) {
	defer func() {
		for _, name := range []string{proofProgram, proofProgram + ".go", proofArchive} {
			err = errors.Join(err, discard(sys.Files, name))
		}
	}()
	if err := sys.Files.WriteFile(proofProgram+".go", []byte(proofSource), 0o644); err != nil {
		return err
	}
	if _, err := sys.Programs.Run(ctx, goBuild("", proofProgram+".go", proofProgram)); err != nil {
		return err
	}
	program, err := sys.Files.ReadFile(proofProgram)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = w.WriteHeader(&tar.Header{Name: "proof", Mode: 0o755, Size: int64(len(program))})
	_, written := w.Write(program)
	if err := errors.Join(err, written, w.Close(), sys.Files.WriteFile(proofArchive, archive.Bytes(), 0o644)); err != nil {
		return err
	}
	docker := func(args ...string) error {
		_, err := sys.Programs.Run(ctx, Command{Program: "docker", Args: args})
		return err
	}
	if err := docker("import", proofArchive, proofImage); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker("image", "rm", "--force", proofImage)) }()
	if err := docker("run", "--rm", "--privileged", "--network", "none", proofImage, "/proof"); err != nil {
		return fmt.Errorf("a privileged container does not start: %w", err)
	}
	return nil
}
