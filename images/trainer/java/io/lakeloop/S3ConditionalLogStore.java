package io.lakeloop;

import io.delta.storage.S3SingleDriverLogStore;
import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSBadRequestException;

/**
 * Delta's log on S3, for writers that do not know of each other.
 *
 * <p>A version is committed by putting its file where there is none. Delta's own store for S3 looks first and puts
 * then, and of two programs that do so at once one loses its commit. Here the put itself has the condition
 * ({@code If-None-Match: *}), and S3 decides.
 */
public class S3ConditionalLogStore extends S3SingleDriverLogStore {
  /** Of hadoop-aws: the object is put only where there is none. */
  private static final String CONDITIONAL = "fs.option.create.conditional.overwrite";

  private static final int TRIES = 5;

  public S3ConditionalLogStore(Configuration configuration) {
    super(configuration);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration)
      throws IOException {
    if (overwrite) {
      super.write(path, actions, true, configuration);
      return;
    }
    ByteArrayOutputStream lines = new ByteArrayOutputStream();
    while (actions.hasNext()) {
      lines.write((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
    }
    FileSystem store = path.getFileSystem(configuration);
    for (int attempt = 1; !put(store, path, lines.toByteArray(), attempt); attempt++) {}
  }

  /** False: another put of this name is under way (S3 answers 409), and nobody can say yet how it ends. */
  private static boolean put(FileSystem store, Path path, byte[] content, int attempt) throws IOException {
    try (OutputStream out = (OutputStream) store.createFile(path).must(CONDITIONAL, true).build()) {
      out.write(content);
    } catch (IOException error) {
      byte[] found = read(store, path);
      if (found == null) {
        if (error instanceof AWSBadRequestException && attempt < TRIES) {
          return false;
        }
        throw error; // not the condition, but something else
      }
      // A put whose answer was lost is tried again and then finds itself. A commit has a random id in it.
      if (!Arrays.equals(found, content)) {
        FileAlreadyExistsException exists = new FileAlreadyExistsException(path.toUri().toString());
        exists.initCause(error);
        throw exists;
      }
    }
    return true;
  }

  private static byte[] read(FileSystem store, Path path) throws IOException {
    try (InputStream in = store.open(path)) {
      return in.readAllBytes();
    } catch (FileNotFoundException error) {
      return null;
    }
  }
}
