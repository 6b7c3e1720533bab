package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fedlab-dev/fedlab/lab/local"
)

// remembered returns how long the bring-up of a lab took the last time that it
// made or started clusters, from the first of them on; 0 if nobody knows.
func remembered(lab string) (time.Duration, error) {
	path, err := memory(lab)
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read how long the last up took: %w", err)
	}
	// Half a file, left by a power cut, is as good as none.
	took, _ := time.ParseDuration(string(data))
	return took, nil
}

func remember(lab string, took time.Duration) error {
	path, err := memory(lab)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, []byte(took.Round(time.Second).String()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write how long this up took: %w", err)
	}
	return nil
}

func memory(lab string) (string, error) {
	cache, err := local.Cache()
	return filepath.Join(cache, "took", lab), err
}
