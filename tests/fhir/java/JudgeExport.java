import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStreamWriter;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.hl7.fhir.r5.elementmodel.Manager.FhirFormat;
import org.hl7.fhir.utilities.http.ManagedWebAccess;
import org.hl7.fhir.utilities.json.model.JsonObject;
import org.hl7.fhir.utilities.json.parser.JsonParser;
import org.hl7.fhir.utilities.npm.FilesystemPackageCacheManager;
import org.hl7.fhir.utilities.npm.NpmPackage;
import org.hl7.fhir.utilities.validation.ValidationMessage;
import org.hl7.fhir.validation.ValidationEngine;
import org.hl7.fhir.validation.ValidatorUtils;

/**
 * Holds bundles against FHIR R4 and every profile they claim, with HL7's validator and without any network.
 *
 * <p>usage: java -Duser.home=WORK -cp 'LIB/*' JudgeExport.java CORE.tgz PROFILES.tgz TERMINOLOGY FILE... TERMINOLOGY is
 * a folder of code systems and value sets that a terminology server would have. Packages are unpacked below WORK. Prints
 * one JSON object a message (file, level, id, path, text), then one with the number of files and the CPU seconds.
 */
public class JudgeExport {
  static final String VERSION = "4.0.1";

  public static void main(String[] args) throws Exception {
    ManagedWebAccess.setAccessPolicy(ManagedWebAccess.WebAccessPolicy.PROHIBITED);
    // The validator prints its progress; standard output is for the messages only.
    PrintStream output = System.out;
    System.setOut(System.err);
    ValidationEngine engine = engine(Path.of(args[0]), Path.of(args[1]), Path.of(args[2]));
    double starting = seconds();
    try (BufferedWriter out = new BufferedWriter(new OutputStreamWriter(output, StandardCharsets.UTF_8))) {
      for (int i = 3; i < args.length; i++) {
        report(engine, Path.of(args[i]), out);
      }
      JsonObject last = new JsonObject();
      last.add("files", args.length - 3);
      last.add("starting", Double.toString(starting));
      last.add("seconds", Double.toString(seconds() - starting));
      write(last, out);
    }
  }

  /** A validator that knows R4, the profiles and the terminology, and asks nobody for more. */
  static ValidationEngine engine(Path core, Path profiles, Path terminology) throws Exception {
    FilesystemPackageCacheManager packages = new FilesystemPackageCacheManager.Builder().build();
    if (!packages.packageInstalled("hl7.fhir.r4.core", VERSION)) {
      try (InputStream in = Files.newInputStream(core)) {
        packages.addPackageToCache("hl7.fhir.r4.core", VERSION, in, core.toString());
      }
    }
    // The engine asks for the extensions between FHIR versions, of which the export uses none: an empty package will do.
    Path none = Path.of(packages.getFolder(), "hl7.fhir.xver-extensions#0.1.0", "package");
    Files.createDirectories(none);
    Files.writeString(none.resolve("package.json"), "{\"name\":\"hl7.fhir.xver-extensions\",\"version\":\"0.1.0\",\"fhirVersions\":[\"4.0.1\"]}");
    ValidationEngine engine = new ValidationEngine.ValidationEngineBuilder()
        .withVersion(VERSION).withNoTerminologyServer().fromSource("hl7.fhir.r4.core#" + VERSION);
    var loader = ValidatorUtils.loaderForVersion(VERSION);
    try (InputStream in = Files.newInputStream(profiles)) {
      engine.getContext().loadFromPackage(NpmPackage.fromPackage(in), loader, true);
    }
    try (Stream<Path> files = Files.list(terminology)) {
      for (Path file : files.sorted().toList()) {
        engine.getContext().loadFromFile(file.toString(), loader);
      }
    }
    engine.prepare();
    return engine;
  }

  static void report(ValidationEngine engine, Path file, BufferedWriter out) throws Exception {
    List<ValidationMessage> messages = new ArrayList<>();
    engine.validate(Files.readAllBytes(file), FhirFormat.JSON, new ArrayList<>(), messages);
    for (ValidationMessage message : messages) {
      JsonObject line = new JsonObject();
      line.add("file", file.getFileName().toString());
      line.add("level", message.getLevel().toCode());
      line.add("id", String.valueOf(message.getMessageId()));
      line.add("path", String.valueOf(message.getLocation()));
      line.add("text", message.getMessage());
      write(line, out);
    }
  }

  static void write(JsonObject line, BufferedWriter out) throws IOException {
    out.write(JsonParser.compose(line, false).replace("\n", " "));
    out.newLine();
  }

  /** CPU time of all threads: how long it takes on a machine that does nothing else. */
  static double seconds() {
    return ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class).getProcessCpuTime() / 1e9;
  }
}
