package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

// person writes the files of a person's module, which replaces another one by a folder
// next to it, and returns the folder of its program.
func person(t *testing.T, more map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"shop/go.mod":               "module example.test/shop\n\ngo 1.26\n\nrequire example.test/money v0.0.0\n\nreplace example.test/money => ../money\n",
		"shop/cmd/payments/main.go": "package main\n\nimport \"example.test/money\"\n\nfunc main() { print(money.Name) }\n",
		"money/go.mod":              "module example.test/money\n\ngo 1.26\n",
		"money/money.go":            "package money\n\nconst Name = \"cent\"\n",
	}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "shop", "cmd", "payments")
}

func TestFolder(t *testing.T) {
	var programs [][]byte
	for _, more := range []map[string]string{nil, nil, {"money/money.go": "package money\n\nconst Name = \"euro\"\n"}} {
		program := filepath.Join(t.TempDir(), "program")
		if err := Folder(t.Context(), person(t, more), program); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, data)
		if runtime.GOOS == "linux" && more != nil {
			if out, err := exec.CommandContext(t.Context(), program).CombinedOutput(); err != nil || string(out) != "euro" {
				t.Errorf("the program says %q, error %v, want euro", out, err)
			}
		}
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("the same source in another folder makes another program")
	}
	if bytes.Equal(programs[1], programs[2]) {
		t.Error("a change of a replaced module does not change the program")
	}
}

// A go.work of the person counts, as it does for 'go build'.
func TestFolderInAWorkspace(t *testing.T) {
	folder := person(t, map[string]string{
		"shop/go.mod": "module example.test/shop\n\ngo 1.26\n",
		"go.work":     "go 1.26\n\nuse (\n\t./shop\n\t./money\n)\n",
	})
	if err := Folder(t.Context(), folder, filepath.Join(t.TempDir(), "program")); err != nil {
		t.Error(err)
	}
}

func TestFolderRefuses(t *testing.T) {
	const main = "shop/cmd/payments/main.go"
	for name, tt := range map[string]struct {
		more map[string]string
		part string // below the folder of the program
		want string // FOLDER stands for that
	}{
		"no folder":      {nil, "bank", "folder FOLDER is not there"},
		"a file":         {nil, "main.go", "FOLDER is a file, want the folder of a Go main package"},
		"no Go files":    {nil, "../..", "folder FOLDER has no Go files"},
		"only tests":     {map[string]string{"shop/cmd/payments/x/main_test.go": "package main\n"}, "x", "folder FOLDER has no Go files"},
		"no program":     {nil, "../../../money", "the Go package in FOLDER is not main, and makes no program"},
		"a mistake":      {map[string]string{main: "package main\n\nfunc main() { pay(3) }\n"}, "", "build the program in FOLDER: go build: exit status 1\n# example.test/shop/cmd/payments\n./main.go:3:15: undefined: pay"},
		"other platform": {map[string]string{main: "//go:build windows\n\npackage main\n"}, "", "build the program in FOLDER: go build: exit status 1\npackage example.test/shop/cmd/payments: build constraints exclude all Go files in FOLDER"},
		"needs a module": {map[string]string{main: "package main\n\nimport _ \"example.test/ledger\"\n\nfunc main() {}\n"}, "", "build the program in FOLDER: go build: exit status 1\nmain.go:3:8: no required module provides package example.test/ledger; to add it:\n\tgo get example.test/ledger"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(person(t, tt.more), tt.part)
			err := Folder(t.Context(), folder, filepath.Join(t.TempDir(), "program"))
			if want := strings.ReplaceAll(tt.want, "FOLDER", folder); imagestest.ErrorText(err) != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// A program that is up to date is left as it is; what a killed build left goes.
func TestFolderAgain(t *testing.T) {
	folder, program := person(t, nil), filepath.Join(t.TempDir(), "program")
	for _, marked := range []bool{false, true} {
		if err := os.MkdirAll(filepath.Join(program+".tmp", "go-build1", "b001"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Folder(t.Context(), folder, program); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if is := bytes.HasSuffix(data, []byte("mark")); is != marked {
			t.Errorf("the program is the one that was there: %t, want %t", is, marked)
		}
		if err := os.WriteFile(program, append(data, "mark"...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(program)); err != nil || len(left) != 1 {
		t.Errorf("left %v, error %v, want the program alone", left, err)
	}
}

func TestFolderWithoutCompiler(t *testing.T) {
	folder := person(t, nil)
	t.Setenv("PATH", t.TempDir())
	err := Folder(t.Context(), folder, filepath.Join(t.TempDir(), "program"))
	want := "build the program in " + folder + `: no Go compiler is in PATH: exec: "go": executable file not found in $PATH`
	if imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestFolderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("enough"))
	folder := person(t, nil)
	err := Folder(ctx, folder, filepath.Join(t.TempDir(), "program"))
	if want := "build the program in " + folder + ": enough"; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestBeginning(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"plain":      {"a\nb\n", "a\nb"},
		"obeyed":     {"\x1b[2J", `\u001b[2J`},
		"downloads":  {strings.Repeat("go: downloading example.test/money v1.0.0\n", 100) + "broken\n", "broken"},
		"many lines": {strings.Repeat("x\n", 30), strings.Repeat("x\n", 20) + "…"},
		"long lines": {strings.Repeat("é", 3000), strings.Repeat("é", 2048) + "…"},
		"much":       {strings.Repeat("x", 1<<20), strings.Repeat("x", 4096) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			var b beginning
			for _, part := range []string{tt.text[:len(tt.text)/2], tt.text[len(tt.text)/2:]} {
				if n, err := b.Write([]byte(part)); n != len(part) || err != nil {
					t.Errorf("wrote %d of %d, error %v", n, len(part), err)
				}
			}
			if got := b.String(); got != tt.want {
				t.Errorf("got %.80q of %d bytes, want %.80q of %d", got, len(got), tt.want, len(tt.want))
			}
		})
	}
}
