package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// logFile is the error log's file on disk. Its path is immutable and may be relative to the working
// directory. One goroutine at a time may call its methods.
type logFile struct {
	path string
}

// read returns the good lines of the file, oldest first, of at most its last maxErrorLogBytes. A
// missing file is an empty one; damaged lines are left out.
func (f *logFile) read() ([]string, error) {
	path, err := f.target()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	// Of a file cut short at its head the first line is damaged, or complete by luck.
	if _, err := file.Seek(max(0, size-maxErrorLogBytes), io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxErrorLogBytes))
	return parseLogLines(text), err
}

// parseLogLines returns the lines that are log entries: JSON objects with a time, a level and a message.
func parseLogLines(text []byte) []string {
	var lines []string
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		var entry struct {
			Time  time.Time
			Level string
			Msg   string
		}
		// An entry that this program wrote is never longer: the body's limit and what is put around it.
		if len(line) > maxErrorLogEntryBytes+errorLogOverhead || json.Unmarshal(line, &entry) != nil {
			continue
		}
		if entry.Time.IsZero() || entry.Level == "" {
			continue
		}
		lines = append(lines, string(line))
	}
	return lines
}

// probe finds out whether the file could be written, and removes what a killed process left behind.
func (f *logFile) probe() error {
	path, err := f.target()
	if err != nil {
		return err
	}
	dir, base := filepath.Split(path)
	if names, err := os.ReadDir(filepath.Clean(dir)); err == nil {
		for _, name := range names {
			if strings.HasPrefix(name.Name(), base+".") && strings.HasSuffix(name.Name(), tempSuffix) {
				os.Remove(dir + name.Name()) // one that stays costs a few KB, no more
			}
		}
	}
	temp, err := createTemp(path)
	if err != nil {
		return err
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// replace makes text the file's whole content. Whoever reads it, also after a crash, sees the old
// content or the new, never a part: the text is on the disk before it gets the name.
func (f *logFile) replace(text []byte) error {
	path, err := f.target()
	if err != nil {
		return err
	}
	temp, err := createTemp(path)
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	if err == nil {
		err = temp.Sync()
	}
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		os.Remove(temp.Name()) // a full disk needs the room
	}
	return err
}

// target returns the path to write, symbolic links followed.
func (f *logFile) target() (string, error) {
	path, err := filepath.EvalSymlinks(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.path, nil
	}
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s %w", f.path, errNotRegular)
	}
	return path, nil
}

// errNotRegular is why a path is never written that holds a device, a folder or a pipe: replacing
// /dev/null by a file would harm the whole machine.
var errNotRegular = errors.New("is not a regular file")

// tempSuffix ends the names of files that are being written.
const tempSuffix = ".tmp"

// createTemp makes an empty file beside path, readable by its owner alone, and the folder if need be.
func createTemp(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return os.CreateTemp(dir, base+".*"+tempSuffix)
}
