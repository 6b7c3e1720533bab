package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fedlab-dev/fedlab/lab/local"
)

// remembered returns how long the bring-up of a lab took the last time that it
// made or started clusters, from the first of them on; 0 if nobody knows.
func remembered(lab string) time.Duration {
	path, err := memory(lab)
	if err != nil {
		return 0
	}
	// A file that cannot be read, or half of one, left by a power cut, is as good as
	// none: only the time that progress expects comes from it.
	data, _ := os.ReadFile(path)
	took, _ := time.ParseDuration(string(data))
	return took
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
